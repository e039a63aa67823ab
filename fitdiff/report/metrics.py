"""What a number's name tells: whether more of it is better, and what it is to be measured against."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIGHER = re.compile(r"psnr|ssim|cosine|similarity|accuracy|codes_in|perplexity|(^|_)(tar|auc|iou)(_|$|@)")
LOWER = re.compile(r"loss|error|lpips|distance|rmse|nmse|(^|_)(mm|mse|mae|fid|seconds|median|failed|missing)(_|$)")

BASELINE = re.compile(r"(.+?)_(mean_face|mean_map|pca|predicting_nothing)$")
"""`psnr_diffuse_pca` says what PCA reaches in `psnr_diffuse`: nothing that a run can be good at."""


def higher_is_better(metric: str) -> bool | None:
    """Whether a run with more of it is the better one; None where the name does not tell."""
    name = metric.rpartition("/")[2].lower()
    if BASELINE.fullmatch(name):
        return None
    if LOWER.search(name):
        return False
    return True if HIGHER.search(name) else None


def baseline_of(metric: str) -> tuple[str, str] | None:
    """`("psnr_diffuse", "pca")` of `psnr_diffuse_pca`; None for what is no baseline."""
    match = BASELINE.fullmatch(metric)
    return (match[1], match[2].replace("_", " ")) if match else None


def readable(value: float | None) -> str:
    """Four significant digits; a dash for nothing."""
    if value is None:
        return "–"
    text = f"{value:.4g}"
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if "e+" in text and abs(value) < 1e9 else text


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def later_stages_first(metrics: Iterable[str]) -> list[str]:
    """Names `stage/metric`: of the last stage first, which is what a run is made for; else in their order."""
    metrics = list(metrics)
    stages = list(dict.fromkeys(key.partition("/")[0] for key in metrics))
    return sorted(metrics, key=lambda key: -stages.index(key.partition("/")[0]))

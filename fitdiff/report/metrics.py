"""What a number's name tells: whether more of it is better, and what it is to be measured against."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from fitdiff.evaluation.metrics import METRICS

HIGHER = re.compile(
    r"psnr|ssim|cosine|similarity|accuracy|codes_in|perplexity|_db$|_id(_centred)?$|(^|_)(tar|auc|iou)(_|$|@)"
)
LOWER = re.compile(r"loss|error|lpips|distance|rmse|nmse|(^|_)(mm|mse|mae|fid|seconds|median|failed|missing)(_|$)")
"""Of names that `evaluation.metrics.METRICS` does not have: what other benchmarks and stages call their numbers."""

BASELINE = re.compile(r"(.+?)_(mean_face|mean_map|pca|predicting_nothing)$")
"""`psnr_diffuse_pca` says what PCA reaches in `psnr_diffuse`: nothing that a run can be good at."""


def higher_is_better(metric: str) -> bool | None:
    """Whether a run with more of it is the better one; None where the name does not tell, and of a baseline.

    Args:
        metric: a name, alone, or with what it is of: `diffusion/shape_mm`, `unguided/shape_mm`, `median_mm/selfie`.
    """
    names = metric.split("/")[::-1]
    if any(map(baseline_of, names)):
        return None
    return next((sense for name in names if (sense := _sense(name)) is not None), None)


def hint(metric: str) -> str:
    """`higher_is_better` in words; nothing where the name does not tell."""
    return {True: "higher is better", False: "lower is better", None: ""}[higher_is_better(metric)]


def _sense(name: str) -> bool | None:
    if name in METRICS:
        return METRICS[name][2]
    if LOWER.search(name.lower()):
        return False
    return True if HIGHER.search(name.lower()) else None


def baseline_of(metric: str) -> tuple[str, str] | None:
    """`("psnr_diffuse", "pca")` of `psnr_diffuse_pca`; None for what is no baseline."""
    match = BASELINE.fullmatch(metric)
    return (match[1], match[2].replace("_", " ")) if match else None


def is_reference(metric: str, metrics: Collection[str]) -> bool:
    """Whether it says what another of the metrics is to be measured against: a baseline, or another method's number,
    as `mean_face/shape_mm` is beside `shape_mm`."""
    known, (_, _, bare) = baseline_of(metric), metric.partition("/")
    return (known is not None and known[0] in metrics) or bare in metrics


def readable(value: float | None) -> str:
    """Four significant digits; a dash for nothing."""
    if value is None:
        return "–"
    text = f"{value:.4g}"
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if "e+" in text and abs(value) < 1e9 else text


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.5 days`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def by_importance(metrics: Iterable[str]) -> list[str]:
    """Of an evaluation: those of `METRICS` in its order, then others as they come, references last."""
    metrics = list(metrics)
    order = {name: place for place, name in enumerate(METRICS)}
    names = {metric: metric.rpartition("/")[2] for metric in metrics}
    return sorted(metrics, key=lambda key: (is_reference(key, metrics), order.get(names[key], len(order))))


def later_stages_first(metrics: Iterable[str]) -> list[str]:
    """Names `stage/metric`: of the last stage first, which is what a run is made for; else in their order."""
    metrics = list(metrics)
    stages = list(dict.fromkeys(key.partition("/")[0] for key in metrics))
    return sorted(metrics, key=lambda key: -stages.index(key.partition("/")[0]))

"""Tables of variants: means, and paired differences from the baseline, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.ablation.scores import Scores, judge
from experiments.report import markdown_table
from fitdiff.evaluation.metrics import facts_of
from fitdiff.evaluation.statistics import as_text, mean_interval


def mean_table(scores: Scores, metrics: Sequence[str]) -> str:
    """A row a variant: `mean (low to high)` over people and seeds."""
    rows = [[name, *(as_text(mean_interval(row[m]), facts_of(m)[1]) for m in metrics)] for name, row in scores.items()]
    return markdown_table(["", *(facts_of(m)[0] for m in metrics)], rows)


def difference_table(scores: Scores, baseline: str, metrics: Sequence[str], by_seed: bool = False) -> str:
    """A row a variant but the baseline: verdict and paired difference, variant minus baseline (see `judge`)."""

    def cell(name: str, metric: str) -> str:
        said, values = judge(scores[name][metric], scores[baseline][metric], metric, by_seed)
        return f"{said} {as_text(values, '+' + facts_of(metric)[1])}"

    rows = [[name, *(cell(name, m) for m in metrics)] for name in scores if name != baseline]
    return markdown_table([f"against {baseline}", *(facts_of(m)[0] for m in metrics)], rows)

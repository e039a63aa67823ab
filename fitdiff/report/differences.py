"""How the configs of runs differ: only keys that are not the same everywhere, as the tree that they stand in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fitdiff.report.groups import MISSING, Group, differing


@dataclass
class Setting:
    """A line of the tree: a branch without values, or a setting with one text a group."""

    depth: int
    name: str
    values: list[str] = field(default_factory=list)


def setting_tree(groups: Sequence[Group]) -> list[Setting]:
    """Differing settings of groups, each under the branches that lead to it."""
    lines: list[Setting] = []
    above: list[str] = []
    for key, values in sorted(differing(groups).items()):
        *branches, leaf = key.split(".")
        known = next((i for i, (a, b) in enumerate(zip(above, branches, strict=False)) if a != b), None)
        kept = min(len(above), len(branches)) if known is None else known
        lines += [Setting(depth, branches[depth]) for depth in range(kept, len(branches))]
        above = branches
        lines.append(Setting(len(branches), leaf, [setting_text(value) for value in values]))
    return lines


def setting_text(value: Any) -> str:
    """As it is written in YAML."""
    if value is MISSING:
        return repr(MISSING)
    return value if isinstance(value, str) else json.dumps(value, default=str)

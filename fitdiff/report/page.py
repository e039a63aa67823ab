"""The page: everything that the template prints, and the template's environment."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import jinja2
import yaml
from markupsafe import Markup, escape

from fitdiff.report import charts, tables
from fitdiff.report.differences import Setting, setting_tree
from fitdiff.report.groups import Group, find_base, group_runs
from fitdiff.report.items import item_tables, paired_table
from fitdiff.report.metrics import duration, readable
from fitdiff.report.pictures import galleries
from fitdiff.report.runs import TRAINING, Problem, Run
from fitdiff.report.search import Found


@dataclass
class Kind:
    """What the page says of all groups of one kind: training, or one benchmark."""

    name: str
    groups: list[Group]
    overview: tables.Table
    paired: tables.Table | None
    items: list[tables.Table]
    settings: list[Setting]
    base: Group


def render(found: Found, base: str | None = None, title: str | None = None) -> str:
    """The whole page: one HTML document that needs no other file and no network.

    Args:
        found: runs, and what could not be read. base: name of the run or group that others are compared with; None is
            the first of each kind. title: None is made from the runs' names.

    Raises:
        ValueError: no run is called as `base` says.
    """
    groups = group_runs(found.runs)
    wanted = find_base(groups, base)
    notes: list[str] = []
    context = {
        "title": title or _title(found.runs),
        "made": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "groups": groups,
        "runs": found.runs,
        "kinds": [_kind(members, wanted) for members in _by_kind(groups)],
        "charts": charts.charts([group for group in groups if group.kind == TRAINING]),
        "tiers": {
            "held_out": "On held-out people",
            "loss": "Training losses",
            "other": "Everything else that is logged",
        },
        "galleries": galleries(groups, notes),
        "provenance": _provenance(groups),
        "problems": [*found.problems, *(Problem("pictures", note) for note in notes)],
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
        "plot": (charts.LEFT, charts.TOP, charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM),
    }
    page = _environment().get_template("page.html").render(context | _script())
    return page.encode("utf-8", "replace").decode()  # file names may hold bytes that are no UTF-8


def _environment() -> jinja2.Environment:
    """Everything is escaped: names and configs come from files."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fitdiff.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"readable": readable, "duration": duration, "yaml": _yaml, "breakable": _breakable}
    return environment


def _script() -> dict[str, Markup]:
    """Style and script, and the script's hash: the page's policy lets no other script run, and nothing be loaded."""
    folder = importlib.resources.files("fitdiff.report") / "templates"
    style, script = ((folder / name).read_text("utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": Markup(digest)}


def _yaml(config: object) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else ""


def _breakable(name: str) -> Markup:
    """A name or path, escaped, that may be broken where its parts end, but not within a date or a version."""
    return Markup(re.sub(r"(?<=[^\W_])([/_.\-])(?=\w)(?!(?<=\d.)\d)", r"\1<wbr>", str(escape(name))))


def _title(runs: Sequence[Run]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs"


def _by_kind(groups: Sequence[Group]) -> list[list[Group]]:
    kinds = dict.fromkeys(group.kind for group in groups)
    return [[group for group in groups if group.kind == kind] for kind in kinds]


def _kind(groups: list[Group], wanted: Group | None) -> Kind:
    base = wanted if wanted in groups else groups[0]
    measured = [group for group in groups if any(run.rows for run in group.runs)]
    compared = base if base in measured or not measured else measured[0]
    paired = paired_table(measured, compared) if len(measured) > 1 else None
    items = item_tables(measured, compared) if measured else []
    settings = setting_tree(groups) if len(groups) > 1 else []
    return Kind(groups[0].kind, groups, tables.overview(groups), paired, items, settings, base)


def _provenance(groups: Sequence[Group]) -> tables.Table | None:
    members = [(group.index, i, run) for group in groups for i, run in enumerate(group.runs)]
    if not members:
        return None
    anchors = [f"run-{group}-{i}" for group, i, _ in members]
    return tables.facts([run for *_, run in members], [group for group, *_ in members], anchors.__getitem__)

"""Who competes: every method of the bench by name, with the config that decides what it does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.fitting.presets import Preset
from fitdiff.evaluation.methods import RidgeRegression, Solver, around, fitted, from_landmarks, mean_face, regressed
from fitdiff.evaluation.methods import unguided as draw_unguided
from fitdiff.registry import build, config_of

DRAWS = 8
GUIDED, PAPER = "guided", "guided, paper"
WITHOUT = "guided without "


@dataclass(frozen=True)
class Rival:
    """A method.

    Attributes:
        solve: what it does. config: all that decides it, for the key of stored fits. size: side of its photos' crops.
        prepare: what it learns once, before the clock runs.
    """

    solve: Solver
    config: dict[str, Any]
    size: int
    prepare: Callable[[], Any] = bool


def rivals(model: Any, paper: Preset, ours: Preset, seed: int = 0) -> dict[str, Rival]:
    """Every method by name, the simple ones first.

    The rivals that descend on G get the terms of our preset: only what regularises z differs.

    Args:
        paper: the preset of the paper. ours: the one that is compared with all others.
    """
    ridge = functools.cache(lambda: RidgeRegression.of_model(model))
    adam = config_of("fitting", "adam", size=ours.size)
    descend = fitted(adam, ours.sampler, ours.terms, seed)
    steps = build(paper.fitting, "fitting").steps
    sampler = build(ours.sampler, "sampler")

    def rival(name: str, solve: Solver, prepare: Callable[[], Any] = bool, **config: Any) -> tuple[str, Rival]:
        return name, Rival(solve, {"method": name, "seed": seed, "size": ours.size, **config}, ours.size, prepare)

    def guided(name: str, preset: Preset, left_out: str = "") -> tuple[str, Rival]:
        terms = {key: term for key, term in preset.terms.items() if key != left_out}
        nodes = {key: node for key, node in preset.guidance.items() if key != left_out}
        config = {"guidance": nodes, "fitting": preset.fitting, "sampler": preset.sampler, "seed": seed}
        return name, Rival(fitted(preset.fitting, preset.sampler, terms, seed), config, preset.size)

    descent = {"guidance": dict(ours.guidance), "fitting": adam}
    drawing = {"sampler": ours.sampler, "steps": steps}
    return dict(
        [
            rival("mean face", mean_face),
            rival("ridge regression", regressed(ridge), ridge),
            rival("landmarks", from_landmarks),
            rival("Adam", descend, **descent),
            rival("Adam around ridge", around(descend, lambda problem: ridge()(problem.embedding)), ridge, **descent),
            rival("unguided", draw_unguided(sampler, steps, 1, seed), **drawing),
            rival(f"mean of {DRAWS} unguided", draw_unguided(sampler, steps, DRAWS, seed), **drawing),
            guided(PAPER, paper),
            guided(GUIDED, ours),
            *(guided(f"{WITHOUT}{term}", ours, term) for term in ours.guidance),
        ]
    )

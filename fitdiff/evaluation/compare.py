"""Methods of fitting side by side on the stored portraits of held-out people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fitdiff.data.shards import Samples
from fitdiff.evaluation.methods import RidgeRegression, Solver, fitted, mean_face, regressed, unguided
from fitdiff.evaluation.people import KEYS, PHOTO, Scorer, Truth, find_faces, known_problem, photo_problem
from fitdiff.registry import build, config_of


def methods_of(model: Any, ridge: RidgeRegression | None = None) -> dict[str, Solver]:
    """The checkpoint's own fitting, and rivals, by name; ridge regression where it is given."""
    config = model.config
    terms = {name: build(node, "guidance") for name, node in config["guidance"].items()}
    steps = config["fitting"].get("steps", 50)
    return {
        "mean face": mean_face,
        **({} if ridge is None else {"ridge": regressed(lambda: ridge)}),
        "unguided": unguided(build(config["sampler"], "sampler"), steps),
        "guided": fitted(config["fitting"], config["sampler"], terms),
        "adam": fitted(config_of("fitting", "adam"), config["sampler"], terms),
    }


def compare(
    model: Any, held_out: Samples, n: int, methods: Mapping[str, Solver], known_scene: bool, batch: int = 8
) -> dict[str, dict[str, np.ndarray]]:
    """Score each method on those of the first `n` held-out people whose faces are found.

    Args:
        known_scene: the portrait, its landmarks and its scene are given as they were made.

    Returns:
        method -> metric of `Scorer`, and `seconds` a photo -> a number a person.
    """
    size = build(model.config["fitting"], "fitting").size
    detectors = [build(model.config[kind], kind) for kind in ("detector", "landmarks")]
    scorer = Scorer(model)
    rows: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in methods}
    for start in range(0, n, batch):
        people = held_out.gather(range(start, min(start + batch, n)), KEYS)
        problem, square = None, None
        if known_scene:
            problem = known_problem(model, people, {})
        else:
            faces = find_faces(people["image"][:, PHOTO], *detectors)
            found = [row for row, face in enumerate(faces) if face is not None]
            if not found:
                continue
            people = {key: value[found] for key, value in people.items()}
            problem, square = photo_problem(model, [face for face in faces if face is not None], {}, size)
        truth = Truth.of({key: value.to(model.device) for key, value in people.items()}, square)
        for name, solve in methods.items():
            began = time.perf_counter()
            z, scene = solve(problem)
            seconds = torch.full((len(z),), (time.perf_counter() - began) / len(z))
            scores = {**scorer.of_photo(problem, z, scene), **scorer.of_truth(z, scene, truth)}
            rows[name].append({**scores, "seconds": seconds})
    return {name: {key: torch.cat([p[key].cpu() for p in parts]).numpy() for key in parts[0]} for name, parts in rows.items()}  # fmt: skip # noqa: E501

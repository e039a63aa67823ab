"""Made-up runs on disk, whose statistics are known, for the tests of the report page."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image

from fitdiff.storage import write_json

CONFIG = {
    "name": "run", "seed": 0, "resolution": 64, "denoiser": {"_target_": "fitdiff.Unet", "channels": 32},
    "stage": {"diffusion": {"steps": 40, "learning_rate": 0.001}}, "tracker": {"_target_": "none"},
}  # fmt: skip
PROVENANCE = {
    "git": {"commit": "0123456789abcdef", "changes": None}, "packages": {"torch": "2.9", "python": "3.11"},
    "data": "d1", "components": {}, "device": "cpu", "processes": 1,
}  # fmt: skip


def changed(config: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A copy with `denoiser__channels=64` set."""
    config = copy.deepcopy(config)
    for key, value in settings.items():
        *branches, leaf = key.split("__")
        node = config
        for branch in branches:
            node = node.setdefault(branch, {})
        node[leaf] = value
    return config


def write_composed(folder: Path, config: dict[str, Any], overrides: list[str], job: str = "train", mode: str = "RUN"):
    """What Hydra leaves beside a run."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
    hydra = {"hydra": {"mode": mode, "job": {"name": job}}}
    OmegaConf.save(OmegaConf.create(hydra), folder / ".hydra" / "hydra.yaml")


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    """A stage's log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def picture(path: Path, colour: str = "teal", size: tuple[int, int] = (1200, 300)) -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def training(outputs: Path, name: str, shape_mm: float, *, finished: bool = True, **settings: Any) -> Path:
    """A training run: an autoencoder that all share, and a diffusion stage of its own, whose loss is 1 / step."""
    run, key = outputs / name, name.replace("/", "_")
    shared, own = outputs / "stages" / "autoencoder-aaa", outputs / "stages" / f"diffusion-{key}"
    if not shared.exists():
        write_lines(shared / "log.jsonl", [{"step": step, "loss_l1": 1.0 / step} for step in range(1, 30)])
        write_json(shared / "result.json", {"psnr_diffuse": 30.0, "steps": 30, "seconds": 100.0})
        picture(shared / "previews" / "reconstruction-00000030.png", "olive")
    log: list[dict[str, Any]] = [{"step": step, "loss_noise": 10.0 / step} for step in range(1, 41)]
    log += [
        {"step": step, "held_out/shape_mm": shape_mm + 40 / step, "held_out/shape_mm_mean_face": 3.0}
        for step in (10, 20, 40)
    ]
    write_lines(own / "log.jsonl", log if finished else log[:25])
    picture(own / "previews" / "samples-00000020.png", "navy")
    if finished:
        picture(own / "previews" / "samples-00000040.png", "maroon")
        write_json(own / "result.json", {"shape_mm": shape_mm, "shape_mm_mean_face": 3.0, "seconds": 60.0})
        write_json(own / "step-00000040" / "state.json", {"provenance": PROVENANCE})
    stages = {"autoencoder": shared, "diffusion": own}
    write_json(run / "stages.json", {stage: os.path.relpath(folder, run) for stage, folder in stages.items()})
    write_composed(run, changed(CONFIG, name=name, **settings), [f"name={name}", f"seed={settings.get('seed', 0)}"])
    return run


def evaluation(outputs: Path, name: str, errors: dict[str, float | None], benchmark: str = "people", **settings: Any):
    """An evaluation of items whose `shape_mm` is given."""
    folder = outputs / "evaluations" / name
    known = [value for value in errors.values() if value is not None]
    config = {"benchmark": {"n": len(errors)}, "seed": 0, "checkpoint": "nowhere/model"}
    results = {
        "benchmark": benchmark, "name": name, "date": "2026-11-23", "config": changed(config, **settings),
        "config_hash": "c0ffee", "checkpoint": "nowhere/model", "provenance": PROVENANCE, "seconds": 12.0,
        "command": f"python evaluate.py name={name}",
        "rows": [{"name": item, "shape_mm": value, "photo": "x.jpg"} for item, value in errors.items()],
        "summary": {"shape_mm": sum(known) / len(known)}, "notes": ["one photo had no face"],
    }  # fmt: skip
    write_json(folder / "results.json", results)
    (folder / "table.tsv").write_text("method\tshape, mm\nours\t2.5\nFitDiff (published)\t1.2\n")
    picture(folder / "sheet.png", "purple")
    return folder

"""What W&B's file of a training holds, offline: everything that the run's own files have, and where it came from."""

import json

import tracker_stores

from fitdiff.tracker import TrackedRun
from fitdiff.training.log import read_log
from tests.conftest import stage_folder


def test_the_tracker_has_what_the_run_has(tiny_run):
    stages = {stage: stage_folder(tiny_run.parent, stage) for stage in ("autoencoder", "latents", "diffusion")}
    last = stages["diffusion"].resolve().name
    store = tracker_stores.read_wandb(TrackedRun(tiny_run, "tiny", {}, decided_by=last))
    for stage in ("autoencoder", "diffusion"):
        logged = {}
        for entry in read_log(stages[stage] / "log.jsonl"):
            for name, value in entry.items():
                if name != "step" and value is not None:
                    logged.setdefault(f"{stage}/{name}", []).append((entry["step"], value))
        assert logged == {name: points for name, points in store.scalars.items() if name in logged}
        previews = {path.stem.rpartition("-")[0] for path in (stages[stage] / "previews").iterdir()}
        assert {name for name in store.images if name.startswith(stage)} == {f"{stage}/{name}" for name in previews}
    weights = json.loads((tiny_run / "model" / "config.json").read_text())["weights"]["sha256"]
    names = {stage: folder.resolve().name for stage, folder in stages.items()}
    (data,) = {name for name in store.used if name.startswith("data-")}
    assert store.artifacts == {
        names["autoencoder"]: [data],
        names["latents"]: [data, names["autoencoder"]],
        names["diffusion"]: [data, names["latents"]],
        f"model-{weights[:12]}": [names["diffusion"]],
    }
    assert store.used == {data, *names.values()}
    assert store.meshes == {"model/sample": (tiny_run / "sample.glb").stat().st_size}
    assert '"git"' in store.config
    assert '"commit"' in store.config

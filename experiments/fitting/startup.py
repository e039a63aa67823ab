"""How long `fit.py` takes from the command to its first step, and where that time goes.

    python -m experiments.fitting.startup checkpoint=outputs/fitdiff-laptop/model

Every repetition is a process of its own. The first fills the disk's cache and is left out; the table has medians:
seconds by the wall's clock, and of processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STAGES = ("interpreter", "torch", "components", "config", "photo", "model", "face, first scene, first step")


@dataclass
class Options:
    """Of this command."""

    checkpoint: str = "outputs/fitdiff-laptop/model"  # folder written by train.py
    repeats: int = 5  # processes after the first
    overrides: str = ""  # more of fit.py's, separated by spaces
    out: str | None = None  # JSON file for the figures; null: none


def main(options: Options, console: Any) -> None:
    """Print the table, and write it if asked."""
    rows = measure(options)
    figures = {}
    for stage in (*STAGES, "all"):
        pairs = [[sum(x) for x in zip(*row.values(), strict=True)] if stage == "all" else row[stage] for row in rows]
        figures[stage] = [statistics.median(values) for values in zip(*pairs, strict=True)]
        console.print(f"| {stage} | {figures[stage][0]:.2f} | {figures[stage][1]:.2f} |")
    if options.out:
        from fitdiff.storage import write_json

        write_json(Path(options.out), {"wall_and_processor_seconds": figures, "repeats": options.repeats})


def measure(options: Options) -> list[dict[str, list[float]]]:
    """Wall and processor seconds of each stage, a row a process."""
    import skimage.data
    from PIL import Image

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "astronaut.png"
        Image.fromarray(skimage.data.astronaut()).save(photo)
        for _ in range(options.repeats + 1):
            words = [f"photo={photo}", f"checkpoint={Path(options.checkpoint).resolve()}", *options.overrides.split()]
            command = [sys.executable, "-m", "experiments.fitting.startup", "child", str(time.time()), *words]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows[1:]


class FirstStepError(Exception):
    """Raised by the first step: nothing after it is measured."""


def child(started: float, words: Sequence[str]) -> dict[str, list[float]]:
    """What `fit.py` does until its first step, in this process; wall and processor seconds of each stage."""
    times = [(started, 0.0), (time.time(), time.process_time())]

    def lap() -> None:
        times.append((time.time(), time.process_time()))

    import torch  # noqa: F401  # the largest import, on its own

    lap()
    sys.argv[1:] = words
    from fitdiff.cli import prepare

    prepare()
    from fitdiff.album.command import options_of
    from fitdiff.alignment.photo import load_photo
    from fitdiff.model import FitDiff

    lap()
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("fit", overrides=sys.argv[1:])
    lap()
    photo = load_photo(config.photo)
    lap()
    model = FitDiff.load(config.checkpoint, config.device)
    lap()

    def stop(*_: Any) -> None:
        raise FirstStepError

    try:
        model.fit(photo, on_step=stop, **options_of(config))
    except FirstStepError:
        lap()
    laps = zip(STAGES, times[:-1], times[1:], strict=True)
    return {stage: [end - start for start, end in zip(a, b, strict=True)] for stage, a, b in laps}


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(child(float(sys.argv[2]), sys.argv[3:])))
    else:
        from fitdiff.command import run_command

        run_command(main, Options, __doc__)

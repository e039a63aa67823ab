"""A run that is killed while it is tracked: `python -m tests.killed_tracking OUTPUTS TRACKER...`."""

import os
import signal
import sys
from pathlib import Path

from fitdiff import registry
from fitdiff.tracker import TrackedRun, build_trackers
from fitdiff.training.log import Log

STEPS = 24
SCALARS = [1 - step / 64 for step in range(STEPS + 1)]
"""By step; exact in every float format."""


def tracked(outputs: Path) -> TrackedRun:
    return TrackedRun(outputs / "killed", "killed", {"seed": 3}, outputs)


def log_until(last: int, *logs: Log, first: int = 1) -> None:
    for step in range(first, last + 1):
        for log in logs:
            log.write({"loss": SCALARS[step]}, step)


if __name__ == "__main__":
    registry.load_plugins()
    run = tracked(Path(sys.argv[1]))
    logs = []
    for name in sys.argv[2:]:
        trackers = build_trackers({name: registry.config_of("tracker", name)})
        trackers.start(run)
        logs.append(Log(run.folder / f"{name}.jsonl", 0, "toy", trackers))
    log_until(17, *logs)
    os.kill(os.getpid(), signal.SIGKILL)

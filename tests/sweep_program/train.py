"""A train.py in miniature: takes overrides, has a known optimum, and writes, stops and continues as the real one does.

Overrides: x (the metric is (x - 3)^2, plus 1 / step on the way), seed (added too), steps, bursts (fails at this x),
bursts_from (at this x and beyond), holds (hangs after its second step where x is at least this, until it is asked to
stop), holds_once (hangs so, the first time, at this x), garbles (logs what is no JSON at this x, then hangs).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    folder, x = Path(options["outputs"]) / options["name"], float(options["x"])
    (folder / "stage").mkdir(parents=True, exist_ok=True)
    (folder / "stages.json").write_text('{"diffusion": "stage"}')
    log = folder / "stage" / "log.jsonl"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    with (folder / "starts").open("a") as file:
        file.write(f"{done}\n")
    (folder / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    if x == float(options.get("bursts", "nan")) or x >= float(options.get("bursts_from", "inf")):
        sys.exit("the loss is not finite")
    for step in range(done + 1, int(options.get("steps", 3)) + 1):
        with log.open("a") as file:
            file.write(json.dumps({"step": step, "held_out/loss": (x - 3) ** 2 + 1 / step}) + "\n")
        if x == float(options.get("garbles", "nan")):
            log.write_text("{step\n")
            hang()
        once = x == float(options.get("holds_once", "nan")) and done == 0
        if step == 2 and (once or x >= float(options.get("holds", "inf"))):
            hang()
    loss = (x - 3) ** 2 + float(options.get("seed", 0))
    (folder / "metrics.json").write_text(json.dumps({"diffusion": {"loss": loss}}))


def hang() -> None:
    """Until SIGTERM, which ends with 0, as train.py does; a minute without one is a failure."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(60)
    sys.exit("nobody asked to stop")


if __name__ == "__main__":
    main()

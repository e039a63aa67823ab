import json

from fitdiff.tracker import NoTracker
from fitdiff.training.log import Log, read_log


class Recorder(NoTracker):
    def __init__(self):
        self.seen = []

    def log(self, scalars, step):
        self.seen.append((dict(scalars), step))


def test_lines_go_to_the_file_and_the_tracker(tmp_path):
    tracker = Recorder()
    log = Log(tmp_path / "new" / "log.jsonl", 0, "toy", tracker)
    log.write({"loss": 0.5, "grad_norm": float("inf")}, 3)
    assert list(read_log(log.path)) == [{"step": 3, "loss": 0.5, "grad_norm": None}]
    assert tracker.seen == [({"toy/loss": 0.5, "toy/grad_norm": float("inf")}, 3)]


def test_a_continued_run_drops_what_comes_again_and_half_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Log(path, 0, "toy", NoTracker())
    for step in (2, 4, 4, 6):
        log.write({"loss": step / 2}, step)
    with path.open("a") as file:
        file.write('{"step": 8, "lo')
    assert [entry["step"] for entry in read_log(path)] == [2, 4, 4, 6]
    Log(path, 4, "toy", NoTracker()).write({"loss": 9.0}, 6)
    assert [json.loads(line) for line in path.read_text().splitlines()][2:] == [
        {"step": 4, "loss": 2.0},
        {"step": 6, "loss": 9.0},
    ]

import json

import pytest

from fitdiff.storage import CheckpointError
from fitdiff.tracker import NoTracker
from fitdiff.training.log import Log, read_log, training_seconds


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
    for step in (2, 4, 6):
        log.write({"loss": step / 2}, step)
    with path.open("a") as file:
        file.write('{"step": 8, "lo')
    assert [entry["step"] for entry in read_log(path)] == [2, 4, 6]
    Log(path, 4, "toy", NoTracker()).write({"loss": 9.0}, 6)
    assert [json.loads(line) for line in path.read_text().splitlines()][1:] == [
        {"step": 4, "loss": 2.0},
        {"step": 6, "loss": 9.0},
    ]


def test_an_evaluation_that_is_repeated_is_logged_once(tmp_path):
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        log = Log(path, 4, "toy", NoTracker())
        log.write({"held_out/error": 0.5}, 4)
    log.write({"held_out/error": 0.25}, 8)
    assert [entry["step"] for entry in read_log(path)] == [4, 8]


@pytest.mark.parametrize("damage", ["\0\0\0\n", '{"step": \n', "[1]\n", '{"loss": 1}\n'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1}}\n{damage}')
    with pytest.raises(CheckpointError, match=r"log.jsonl, line 2 is damaged .*: delete that line"):
        Log(path, 4, "toy", NoTracker())


def test_the_time_of_all_sessions(tmp_path):
    path = tmp_path / "log.jsonl"
    for start, speed in ((0, 10.0), (20, 40.0)):  # two sessions
        log = Log(path, start, "toy", NoTracker())
        for step in (start + 10, start + 20):
            log.write({"samples_per_second": speed}, step)
            log.write({"held_out/error": 1.0}, step)
    assert training_seconds(path, batch_size=8) == pytest.approx(20 * 8 / 10 + 20 * 8 / 40)

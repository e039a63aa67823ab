"""evaluate.py: a benchmark is built, called and written; names, factors, mistakes; tables in three formats."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from fitdiff import registry
from fitdiff.cli import guarded, hydra_word, run_evaluate
from fitdiff.config import register_schemas
from fitdiff.evaluation.benchmark import BenchmarkError, Context, Evaluation, Table
from fitdiff.evaluation.command import evaluate_what_is_asked, scaled
from fitdiff.evaluation.results import latex, markdown, tsv, write_evaluation
from fitdiff.registry import config_of, load_plugins, register
from tests.conftest import ROOT

TABLE = Table(["method", "error mm"], [["ours_1", "1.2 & more"]], published=[["theirs|2", "3.4"]], title="50% of it")


class Toy:
    """Keeps the context that it is called with."""

    seen: Context

    def __init__(self, *, answer: float = 42.0, predictions: str | None = None) -> None:
        """`answer`: to give."""
        if answer < 0:
            raise ValueError(f"benchmark.answer={answer}: give 0 or more")
        self.answer, self.predictions = answer, predictions

    def __call__(self, context: Context) -> Evaluation:
        """Answer."""
        (context.out / "kept").mkdir(parents=True, exist_ok=True)
        Toy.seen = context
        rows = [{"name": "a", "error": np.float32(self.answer)}, {"name": "b", "error": float("nan")}]
        picture = np.zeros((4, 6, 3), np.uint8)
        pictures = {"sheet": picture, "curve": Figure()}
        return Evaluation(rows, {"error": self.answer}, {"first": TABLE, "second": TABLE}, pictures, ["a toy"])


@pytest.fixture(scope="module", autouse=True)
def _registered():
    """For this file alone: other tests look at everything that is registered."""
    register("benchmark", "toy")(Toy)
    yield
    del registry._components["benchmark", "toy"]


def composed(*words):
    load_plugins()
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("evaluate", [hydra_word(word) for word in ("benchmark=toy", *words)])


def evaluate(*words):
    return evaluate_what_is_asked(composed(*words), Console(quiet=True))


def test_everything_is_written_and_says_where_it_comes_from(tmp_path):
    out = evaluate(f"outputs={tmp_path}", f"checkpoint={tmp_path}/my-run/model")
    names = {path.name for path in out.iterdir()}
    assert names == {
        "results.json", "table.md", "table.tsv", "table.tex", "second.tsv", "second.tex", "sheet.jpg", "curve.png",
        "kept",
    }  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    assert results["benchmark"] == "toy"
    assert results["rows"] == [{"name": "a", "error": 42.0}, {"name": "b", "error": None}]
    assert results["summary"] == {"error": 42.0}
    assert results["notes"] == ["a toy"]
    assert results["checkpoint"] is None  # it asked for no model
    assert results["config"]["guidance"]["mse"]["weight"] == 10
    assert {"git", "packages", "components"} <= results["provenance"].keys()
    assert out == tmp_path / "evaluations" / results["name"]
    assert results["name"].startswith("toy-my-run-")
    with Image.open(out / "sheet.jpg") as picture:
        assert picture.size == (6, 4)


def test_the_same_settings_are_the_same_folder_and_others_another(tmp_path):
    base = [f"outputs={tmp_path}", f"checkpoint={tmp_path}/run/model"]
    first = evaluate(*base)
    assert evaluate(*base, "batch=3", "device=cpu") == first
    others = [
        evaluate(*base, *word.split())
        for word in ("benchmark.answer=1", "seed=1", "guidance.mse.weight=9", "factors={mse:0}", "fitting.steps=7")
    ]
    assert len({first, *others}) == 6
    assert evaluate(*base, "name=by/hand") == tmp_path / "evaluations" / "by" / "hand"
    assert evaluate(*base, f"out={tmp_path / 'there'}") == tmp_path / "there"


def test_what_the_command_line_leaves_open_is_the_checkpoints(tmp_path, tiny_run):
    words = [f"outputs={tmp_path}", f"checkpoint={tiny_run / 'model'}"]
    results = json.loads((evaluate(*words) / "results.json").read_text())
    trained = json.loads((tiny_run / "model" / "config.json").read_text())
    assert results["config"]["detector"] == trained["detector"]
    assert results["config"]["renderer"] == trained["renderer"]
    assert results["config"]["weights"] == trained["weights"]
    context = Toy.seen
    assert context.node("landmarks") == trained["landmarks"]
    assert context.model.fingerprint() == context.model.fingerprint()
    link = tmp_path / "elsewhere"
    link.symlink_to(tiny_run / "model")
    again = json.loads((evaluate(f"outputs={tmp_path}", f"checkpoint={link}") / "results.json").read_text())
    assert again["config_hash"] == results["config_hash"]  # the same weights, wherever they lie


def test_results_reach_the_tracker(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = evaluate(f"outputs={tmp_path}", f"checkpoint={tmp_path}/run/model", "tracker=tensorboard")
    (events,) = tmp_path.rglob("events.out.*")
    reader = EventAccumulator(str(events))
    reader.Reload()
    assert [event.value for event in reader.Scalars("toy/error")] == [42.0]
    assert (out / "results.json").exists()


def test_meshes_of_others_are_named_after_their_folder_and_have_nothing_of_a_checkpoint(tmp_path, tiny_run):
    words = [f"outputs={tmp_path}", f"benchmark.predictions={tmp_path / 'their meshes'}"]
    here = evaluate(*words, "checkpoint=nothing")
    assert evaluate(*words, f"checkpoint={tiny_run / 'model'}", "seed=3") == here
    assert here.name.startswith("toy-their_meshes-")
    assert set(json.loads((here / "results.json").read_text())["config"]) == {"benchmark"}


def test_factors_multiply_weights_and_zero_leaves_a_term_out():
    guidance = {"mse": {"weight": 10.0, "x": 1}, "id_cos": {"weight": 2.0}, "vgg": {"weight": 1.0}}
    assert scaled(guidance, {"mse": 0.5, "vgg": 0}) == {"mse": {"weight": 5.0, "x": 1}, "id_cos": {"weight": 2.0}}
    assert guidance["mse"]["weight"] == 10.0
    for factors, message in (
        ({"lpips": 2}, "lpips.* no such term; it has .*id_cos.*mse.*vgg"),
        ({"mse": -1}, "mse.* not numbers of 0 or more"),
        ({"mse": float("nan")}, "mse.* not numbers of 0 or more"),
        ({"mse": 0, "id_cos": 0, "vgg": 0}, "leave no term"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            scaled(guidance, factors)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark.answer=-1"], "benchmark.answer=-1.0: give 0 or more"),
        (["batch=0"], "batch=0: give 1 or more"),
        (["factors={lpips: 2}"], "guidance has no such term"),
        (["guidance=[]"], "guidance=[]: give a term"),
        (["benchmark=people", "benchmark.methods=[magic]"], "['magic'] are unknown; choose from mean_face"),
        (["benchmark=people", "benchmark.portraits=odd"], "give usual or hard"),
        (["benchmark=people", "checkpoint=/nowhere/model"], "no checkpoint at /nowhere/model"),
        (["benchmark=identity", "benchmark.pairs=a.txt"], "give that folder, too"),
        (["benchmark=identity", "benchmark.path=/nowhere"], "benchmark.path=/nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line_and_end_with_2(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        guarded(run_evaluate)(composed(f"out={tmp_path / 'out'}", *words))
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_help_shows_benchmarks_and_overrides():
    done = subprocess.run([sys.executable, "evaluate.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ("benchmark: identity, now, people, realy", "Common overrides", "factors=", "checkpoint="):
        assert text in done.stdout
    assert "scale: base" not in done.stdout  # train.py's


def test_published_figures_are_marked_in_every_format():
    assert markdown(TABLE) == (
        "**50% of it**\n\n| method | error mm | figures |\n| --- | ---: | ---: |\n"
        "| ours_1 | 1.2 & more | this run |\n| theirs\\|2 | 3.4 | as published |"
    )
    rows = list(csv.reader(tsv(TABLE).splitlines(), delimiter="\t"))
    assert rows == [
        ["method", "error mm", "figures"], ["ours_1", "1.2 & more", "this run"], ["theirs|2", "3.4", "as published"],
    ]  # fmt: skip
    text = latex(TABLE)
    assert r"ours\_1 & 1.2 \& more & this run \\" in text
    assert text.index("this run") < text.rindex(r"\midrule") < text.index("as published")
    assert text.startswith("% 50% of it\n\\begin{tabular}{lrr}")
    assert "figures" not in markdown(Table(["a"], [["1"]]))


def test_a_row_of_another_length_is_refused_before_anything_is_written_or_removed(tmp_path):
    write_evaluation(tmp_path, Evaluation([], {"answer": 1.0}, {"t": TABLE}), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="row of 1 cells, expected 2"):
        write_evaluation(tmp_path, Evaluation([], {}, {"t": Table(["a", "b"], [["1"]])}), {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_written_again_has_nothing_of_the_former_evaluation(tmp_path):
    mine = tmp_path / "mine.tsv"
    mine.write_text("not theirs")
    picture = {"people": np.zeros((4, 6, 3), np.uint8)}
    write_evaluation(tmp_path, Evaluation([], {}, {"first": TABLE, "missing": TABLE}, picture), {})
    assert {"missing.tex", "people.jpg"} < {path.name for path in tmp_path.iterdir()}
    (tmp_path / "results.json").write_text(
        (tmp_path / "results.json").read_text().replace('"people.jpg"', '"people.jpg", "../outside.txt"')
    )
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("stays")
    write_evaluation(tmp_path, Evaluation([], {}, {"first": TABLE}), {})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"table.md", "table.tsv", "table.tex", "results.json", "mine.tsv"}
    assert outside.exists()


def test_every_benchmark_of_the_package_has_a_config():
    for name in ("people", "identity", "realy", "now"):
        assert config_of("benchmark", name)["_target_"]

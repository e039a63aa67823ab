"""Groups, intervals, marks and paired differences are those of closed forms and of plain references."""

import re
from pathlib import Path

import numpy as np
import pytest

from fitdiff.evaluation.statistics import difference_interval
from fitdiff.report import Run, find_runs
from fitdiff.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, charts
from fitdiff.report.differences import setting_tree
from fitdiff.report.groups import find_base, group_runs, over_seeds
from fitdiff.report.items import item_tables, item_values, paired_table
from fitdiff.report.metrics import baseline_of, by_importance, duration, higher_is_better, is_reference, readable
from fitdiff.report.runs import TRAINING, Curve, Number
from fitdiff.report.tables import overview
from tests.unit.report_runs import evaluation, training


def run_of(name, shape_mm=None, curve=None, source=None, **config):
    """A training run without files."""
    source = source or name
    numbers = {"diffusion/shape_mm": Number(shape_mm, source)} if shape_mm is not None else {}
    curves = {"diffusion/loss": Curve(*curve, source)} if curve else {}
    return Run(name, Path(name), TRAINING, config=config, compared=config, numbers=numbers, curves=curves)


def test_students_interval_of_three_seeds():
    # t_{0.975, 2} = 4.302653; s = 1; 4.302653 / sqrt(3) = 2.484138
    estimate = over_seeds([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((2.0, 2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert over_seeds([4.0]).low is None


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    estimates = [over_seeds(sample) for sample in rng.normal(size=(1500, 3))]
    assert np.mean([e.low <= 0 <= e.high for e in estimates]) == pytest.approx(0.95, abs=0.02)


def test_runs_that_differ_in_their_seed_alone_are_one_group():
    runs = [run_of(f"grid/wide-s{s}", s, seed=s, out=f"n{s}", net={"c": 64}) for s in range(3)]
    runs += [run_of("grid/narrow-s0", 9.0, seed=0, net={"c": 32}), run_of("unknown", 1.0), run_of("unknown2", 1.0)]
    groups = group_runs(runs)
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("grid/wide", 3), ("grid/narrow-s0", 1), ("unknown", 1), ("unknown2", 1),
    ]  # fmt: skip
    estimate = groups[0].estimate("diffusion/shape_mm")
    assert (estimate.mean, estimate.n) == (1.0, 3)


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (("cross-0", "cross-1"), "cross"),
        (("a/s0", "a/s1"), "a"),
        (("x-seed=1", "x-seed=2"), "x"),
        (("p", "q"), "p and 1 more"),
    ],
)
def test_what_names_of_a_group_have_in_common(names, common):
    assert [group.name for group in group_runs([run_of(name, c=1) for name in names])] == [common]


def test_groups_of_the_same_common_name_are_told_apart():
    runs = [run_of(f"run-{i}", seed=i, c=i // 2) for i in range(4)]
    assert [group.name for group in group_runs(runs)] == ["run-0 and 1 more", "run-2 and 1 more"]


def test_a_training_that_two_experiments_share_is_one_seed():
    runs = [run_of(f"{name}-s{s}", float(s), source=f"stage-{s}", seed=s) for name in "ab" for s in range(3)]
    (group,) = group_runs(runs)
    assert group.seeds == ["0", "1", "2"]
    assert group.estimate("diffusion/shape_mm").n == 3


def test_a_shared_stage_counts_once():
    runs = [run_of(f"a-s{s}", 30.0, source="stages/autoencoder", seed=s, c=1) for s in range(3)]
    estimate = group_runs(runs)[0].estimate("diffusion/shape_mm")
    assert (estimate.n, estimate.low) == (1, None), "three runs of one autoencoder say nothing of its seeds"


def test_a_seed_without_a_value_is_told():
    runs = [run_of("a-s0", 1.0, seed=0, c=1), run_of("a-s1", 2.0, seed=1, c=1), run_of("a-s2", seed=2, c=1)]
    cell = overview(group_runs(runs)).rows[0].cells[-1]
    assert cell.text == "1.5"
    assert cell.detail.endswith("1 missing")


def test_the_base_is_found_by_run_or_group_and_else_the_names_are_listed():
    groups = group_runs([run_of("a-s0", seed=0, c=1), run_of("a-s1", seed=1, c=1), run_of("b", c=2)])
    assert find_base(groups, "a") is find_base(groups, "a-s1") is groups[0]
    with pytest.raises(ValueError, match="base=c: there is no such run; there are a, b"):
        find_base(groups, "c")


def test_the_best_is_marked_by_the_metrics_own_sense():
    def marked(metric, values):
        runs = [run_of(f"r{i}", c=i) for i in range(len(values))]
        for run, value in zip(runs, values, strict=True):
            run.numbers = {metric: Number(value, run.name)}
        return [row.cells[-1].mark for row in overview(group_runs(runs)).rows]

    assert marked("diffusion/shape_mm", [2.0, 1.0, 3.0]) == ["", "best", ""]
    assert marked("autoencoder/psnr_diffuse", [2.0, 1.0, 3.0]) == ["", "", "best"]
    assert marked("diffusion/strange", [2.0, 1.0, 3.0]) == ["", "", ""]
    table = overview(group_runs([run_of("a", 2.0, c=1), run_of("b", 2.0, c=2)]))
    assert table.shared == [("diffusion/shape_mm", "2")], "equals have no best"
    assert len(table.columns) == 4


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("diffusion/noise_loss", False), ("id_cosine", True), ("psnr_diffuse_pca", None), ("shape_mm_mean_face", None),
     ("median", False), ("tar@0.01", True), ("learning_rate", None), ("unguided/shape_mm", False),
     ("median_mm/selfie", False), ("diffuse_db", True), ("novel_id_centred", True),
     ("true_landmarks", False), ("star", None), ("loss_x/psnr_pca", None), ("shape_mm_mean_face/selfie", None),
     ("held_out/noise_loss_predicting_nothing", None), ("mean_face/shape_mm", False), ("train/loss_id", False)],
)  # fmt: skip
def test_which_way_is_better(metric, expected):
    assert higher_is_better(metric) is expected


def test_references_come_last_and_the_projects_own_metrics_in_its_order():
    metrics = ["mean_face/shape_mm", "odd", "shape_mm", "novel_id"]
    assert by_importance(metrics) == ["novel_id", "shape_mm", "odd", "mean_face/shape_mm"]
    assert is_reference("psnr_diffuse_pca", ["psnr_diffuse"])
    assert not is_reference("median_mm/selfie", ["median_mm", "median_mm/selfie"])


def test_words():
    assert baseline_of("psnr_diffuse_mean_map") == ("psnr_diffuse", "mean map")
    assert (readable(0.123456), readable(None), readable(1234567.0)) == (
        "0.1235",
        "–",
        "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567",
    )
    assert (duration(45), duration(720), duration(12240)) == ("45 s", "12 min", "3.4 h")


# --- curves ----------------------------------------------------------------------------------------------------


def path_points(path):
    return [tuple(map(float, pair.split())) for pair in path[1:].rstrip("Z").split("L")]


def value_at(chart, place):
    low, high, start, end, log = map(float, chart.scale.split()[1].split(","))
    share = (place - start) / (end - start)
    return low * (high / low) ** share if log else low + share * (high - low)


def test_mean_and_band_lie_where_the_closed_form_says():
    steps = (0, 10, 20)
    runs = [run_of(f"a-s{s}", curve=(steps, (s + 1.0, s + 2.0, s + 4.0)), seed=s, c=1) for s in range(3)]
    (chart,) = charts(group_runs(runs))
    (line,) = chart.lines
    places = path_points(line.path)
    assert [x for x, _ in places] == pytest.approx([LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT])
    assert [value_at(chart, y) for _, y in places] == pytest.approx([2.0, 3.0, 5.0], abs=0.02)
    band = [value_at(chart, y) for _, y in path_points(line.band)]
    half = 2.484138
    assert band == pytest.approx([2 + half, 3 + half, 5 + half, 5 - half, 3 - half, 2 - half], abs=0.03)
    assert len(line.thin) == 3
    assert line.last == "5 at step 20"


def test_the_mean_is_of_the_steps_that_all_seeds_have():
    first, second = ((1, 2, 3, 4), (1.0, 2.0, 3.0, 4.0)), ((1, 4), (3.0, 6.0))
    runs = [run_of("a-s0", curve=first, seed=0, c=1), run_of("a-s1", curve=second, seed=1, c=1)]
    (chart,) = charts(group_runs(runs))
    assert [value_at(chart, y) for _, y in path_points(chart.lines[0].path)] == pytest.approx([2.0, 5.0], abs=0.02)
    assert not chart.lines[0].band, "the interval of two seeds would fill the picture"


def test_groups_that_share_a_stage_share_its_line():
    curve = ((1, 2), (1.0, 2.0))
    runs = [run_of(f"r{i}", curve=curve, source="shared", c=i) for i in range(3)]
    (line,) = charts(group_runs(runs))[0].lines
    assert (line.groups, line.colour) == ("0 1 2", None)


def test_a_wide_range_of_positive_values_has_a_logarithmic_axis():
    (wide,) = charts(group_runs([run_of("a", curve=((1, 2, 3), (1.0, 10.0, 100.0)))]))
    (signed,) = charts(group_runs([run_of("a", curve=((1, 2, 3), (-1.0, 10.0, 100.0)))]))
    assert wide.log
    assert not signed.log
    assert [label for _, label in wide.y_ticks] == ["1", "3", "10", "30", "100"]
    first, middle, last = (y for _, y in path_points(wide.lines[0].path))
    assert middle == pytest.approx((first + last) / 2, abs=0.1)


def test_ticks_are_round_and_inside_and_long_curves_are_averaged():
    steps = tuple(range(0, 10_000))
    (chart,) = charts(group_runs([run_of("a", curve=(steps, tuple(float(s) for s in steps)))]))
    points = path_points(chart.lines[0].path)
    assert len(points) == 150
    values = [value_at(chart, y) for _, y in points]
    assert values[0] == pytest.approx(np.arange(67).mean(), abs=25), "a mean of equal spans, to a tenth of a unit"
    assert all(re.fullmatch(r"\d+", label) and 0 <= y <= HEIGHT for y, label in chart.y_ticks)


def test_what_never_changes_is_no_curve_and_baselines_are_lines(tmp_path):
    training(tmp_path, "a", 2.5)
    made = {chart.title: chart for chart in charts(group_runs(find_runs(str(tmp_path)).runs))}
    assert list(made) == ["diffusion/held_out/shape_mm", "diffusion/loss_noise", "autoencoder/loss_l1"]
    ((place, label),) = made["diffusion/held_out/shape_mm"].references
    assert label == "mean face"
    assert value_at(made["diffusion/held_out/shape_mm"], place) == pytest.approx(3.0, abs=0.02)
    assert not charts(group_runs([run_of("a", curve=((1, 2), (3.0, 3.0)))]))


# --- items -----------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(tmp_path):
    """Ten items; `better` is 0.5 less on each but for a little, `same` is the base with its order reversed."""
    errors = {f"item {i}": 1.0 + i for i in range(10)}
    evaluation(tmp_path, "base", errors, known=0)
    evaluation(
        tmp_path,
        "better",
        {name: value - 0.5 - 0.01 * (i % 2) for i, (name, value) in enumerate(errors.items())},
        known=1,
    )
    evaluation(
        tmp_path, "level", {name: value + 0.1 * (-1) ** i for i, (name, value) in enumerate(errors.items())}, known=2
    )
    evaluation(tmp_path, "same", dict(reversed(errors.items())) | {"extra": 100.0, "item 0": None}, known=3)
    return group_runs(find_runs(str(tmp_path)).runs)


def test_differences_are_paired_by_item(evaluated):
    table = paired_table(evaluated, evaluated[0])
    cells = {row.cells[0].text: row.cells[2] for row in table.rows}
    better = cells["better"]
    assert better.value == pytest.approx(-0.505)
    assert better.mark == "beats"
    ours, theirs = (item_values(group, "shape_mm", [f"item {i}" for i in range(10)]) for group in evaluated[1::-1])
    low, high = difference_interval(ours, theirs)[1:]
    assert better.detail == f"{low:+.4g} to {high:+.4g}"
    assert high - low < 0.02, "pairing removes what items differ in"
    assert cells["level"].mark == ""
    assert cells["same"].value == pytest.approx(0.0, abs=1e-12), (
        "by name, whatever the order; what one lacks is left out"
    )


def test_every_item_of_every_run_stands_in_the_table(evaluated):
    (table,) = item_tables(evaluated, evaluated[0])
    assert [column.name for column in table.columns] == ["item", "base", "better", "level", "same"]
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in table.rows}
    assert rows["item 3"] == ["4", "3.49", "3.9", "4"]
    assert rows["extra"] == ["–", "–", "–", "100"]
    assert rows["item 0"][-1] == "–"
    assert table.footer[1].text == "5.5"


def test_one_run_has_its_metrics_as_columns(tmp_path):
    evaluation(tmp_path, "only", {"x": 1.0, "y": 3.0})
    groups = group_runs(find_runs(str(tmp_path)).runs)
    (table,) = item_tables(groups, groups[0])
    assert [column.name for column in table.columns] == ["item", "shape_mm"]
    assert table.footer[1].text == "2"


def test_seeds_of_an_item_are_averaged(tmp_path):
    for seed, value in enumerate((1.0, 2.0, 6.0)):
        training(tmp_path, f"wide-s{seed}", 2.0, seed=seed)
        evaluation(
            tmp_path, f"people-s{seed}", {"x": value, "y": None if seed else 5.0}, checkpoint=f"wide-s{seed}/model"
        )
    (group,) = group_runs(find_runs(str(tmp_path / "evaluations")).runs)
    (table,) = item_tables([group], group)
    assert group.name == "people"
    assert [row.cells[1].text for row in table.rows] == ["3", "5"]


def test_too_many_items_are_cut_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fitdiff.report.items.MOST_CELLS", 20)
    evaluation(tmp_path, "only", {f"i{i}": float(i) for i in range(50)})
    groups = group_runs(find_runs(str(tmp_path)).runs)
    (table,) = item_tables(groups, groups[0])
    assert len(table.rows) == 20
    assert table.note == "The first 20 of 50 items; the mean is of all."
    assert table.footer[1].text == "24.5"


# --- configs ---------------------------------------------------------------------------------------------------


def test_only_differing_settings_stand_in_the_tree():
    runs = [
        run_of("a", seed=0, net={"size": 1, "block": {"depth": 2, "same": 3}}, steps=[1, 2]),
        run_of("b", seed=1, net={"size": 1, "block": {"depth": 4, "same": 3}, "new": {"x": None}}, steps=[1, 3]),
    ]
    lines = [(line.depth, line.name, line.values) for line in setting_tree(group_runs(runs))]
    assert lines == [
        (0, "net", []), (1, "block", []), (2, "depth", ["2", "4"]), (1, "new", []), (2, "x", ["–", "null"]),
        (0, "steps", ["[1, 2]", "[1, 3]"]),
    ]  # fmt: skip

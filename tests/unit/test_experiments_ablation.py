"""Scores, tables, charts and grids of experiments/ablation, on made-up results whose statistics are known."""

import json

import numpy as np
import pytest

from experiments.ablation.charts import curve_chart, difference_chart, place_of
from experiments.ablation.grid import jobs_of
from experiments.ablation.scores import judge, read_results, stack_scores
from experiments.ablation.tables import difference_table, mean_table
from fitdiff.evaluation.metrics import facts_of

METRICS = ("shape_mm", "frontal_id_centred")


def rows(shape, identity, names="abcdefgh"):
    return [{"name": n, "shape_mm": shape + k, "frontal_id_centred": identity} for k, n in enumerate(names)]


def scores_of_variants():
    """Two seeds; `worse` is off by exactly 0.5 mm for every person, `same` is the baseline's copy."""
    return stack_scores(
        {
            "base": [rows(1.0, 0.5), rows(1.0, 0.5)],
            "worse": [rows(1.5, 0.5), rows(1.5, 0.5)],
            "better": [rows(0.5, 0.6), rows(0.5, 0.6)],
        },
        METRICS,
    )


def test_scores_are_of_the_people_that_all_have_in_one_order():
    scores = stack_scores({"a": [rows(1, 0, "pqr"), rows(2, 0, "rqp")], "b": [rows(3, 0, "xqr")]}, ["shape_mm"])
    assert scores["a"]["shape_mm"].tolist() == [[2, 3], [3, 2]]  # q, r
    assert scores["b"]["shape_mm"].tolist() == [[4, 5]]


def test_who_has_no_number_is_left_out_and_a_missing_number_is_none():
    found = [{"name": "p", "shape_mm": None}, {"name": "q", "shape_mm": 2}, {"name": "r", "frontal_id_centred": 0.5}]
    scores = stack_scores({"a": [found]}, METRICS)["a"]
    np.testing.assert_array_equal(scores["shape_mm"], [[2, np.nan]])
    np.testing.assert_array_equal(scores["frontal_id_centred"], [[np.nan, 0.5]])


def test_results_that_cannot_be_compared_are_told():
    with pytest.raises(ValueError, match=r"no results of \['b'\]"):
        stack_scores({"a": [rows(1, 0)], "b": []}, METRICS)
    with pytest.raises(ValueError, match="different people"):
        stack_scores({"a": [rows(1, 0, "pq")], "b": [rows(1, 0, "xy")]}, METRICS)


def test_a_file_that_is_no_result_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"results\.json: got no rows"):
        read_results(path)


def test_a_constant_difference_has_an_interval_of_no_width():
    scores = scores_of_variants()
    said, values = judge(scores["worse"]["shape_mm"], scores["base"]["shape_mm"], "shape_mm")
    assert said == "behind"
    np.testing.assert_allclose(values, 0.5)
    assert judge(scores["base"]["shape_mm"], scores["base"]["shape_mm"], "shape_mm")[0] == "level"
    assert judge(scores["better"]["frontal_id_centred"], scores["base"]["frontal_id_centred"], METRICS[1])[0] == "beats"


def test_tables_say_means_and_differences():
    scores = scores_of_variants()
    assert "| base | 4.50 (" in mean_table(scores, METRICS)
    table = difference_table(scores, "base", METRICS)
    assert "| worse | behind +0.50 (+0.50 to +0.50) | level +0.00 (+0.00 to +0.00) |" in table
    assert "| base |" not in table.split("\n", 2)[2]


def test_charts_have_a_panel_a_metric_and_every_variant():
    figure = difference_chart(scores_of_variants(), "base", METRICS)
    assert [axis.get_title() for axis in figure.axes] == [facts_of(metric)[0] for metric in METRICS]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["worse", "better"]
    rings = [line for line in figure.axes[0].lines if line.get_fillstyle() == "none"]
    assert [list(line.get_xdata()) for line in rings] == [[0.5, 0.5], [-0.5, -0.5]]
    curves = {"T = 10": {0.0: scores_of_variants()["base"], 1.0: scores_of_variants()["worse"]}}
    panel = curve_chart(curves, METRICS, "s", mark=1.0).axes[0]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["off", "1"]
    points = next(line for line in panel.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o")
    assert list(points.get_ydata()) == pytest.approx([4.5, 5.0])


def test_off_stands_a_step_left_of_the_least():
    assert place_of(0, [0, 0.1, 1, 10]) == pytest.approx(-2)
    assert place_of(10, [0, 0.1, 1, 10]) == pytest.approx(1)


def test_a_grid_is_the_product_that_hydra_would_run(tmp_path):
    jobs = jobs_of("train", ["experiment=single_vs_separate", f"outputs={tmp_path}"])
    assert [job.config.name for job in jobs] == [
        f"single_vs_separate/{model}-s{seed}" for seed in (0, 1, 2) for model in ("fitdiff", "fitdiff_separate")
    ]
    assert [job.config.seed for job in jobs] == [0, 0, 1, 1, 2, 2]
    assert {job.config.autoencoder_seed for job in jobs} == {0}
    assert [job.config.model.separate for job in jobs[:2]] == [False, True]
    with pytest.raises(ValueError, match="experimentt"):
        jobs_of("train", ["experimentt=x"])


def test_a_grid_of_mappings_and_of_values_with_points(tmp_path):
    jobs = jobs_of("evaluate", ["experiment=lambda_ablation", f"outputs={tmp_path}"])
    assert jobs[0].config.factors == {}
    assert [dict(job.config.factors) for job in jobs[1:4]] == [{"id_cos": 0}, {"id_cos": 0.316}, {"id_cos": 3.16}]
    assert jobs[1].values == {"factors": "{id_cos:0}"}

"""W&B's sweep format: what it means, spelled as W&B's own agent spells it, and what is refused."""

import math

import pytest
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from fitdiff.sweep.spec import Choice, Early, Range, SweepError, parse_spec, read_spec

COMMAND = ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}", "name=x/${oc.env:WANDB_RUN_ID}"]


def sweep(parameters, **more):
    metric = {"name": "diffusion/held_out/loss"}
    return parse_spec(
        {"program": "train.py", "method": "grid", "metric": metric, "command": COMMAND, "parameters": parameters} | more
    )


def dimension(**node):
    return sweep({"x": node}, method="random").parameters["x"]


def test_the_rows_of_a_grid_are_those_of_hydras_multirun():
    rows = sweep(
        {"a": {"values": [1, 2]}, "b": {"value": "c"}, "d": {"parameters": {"e": {"values": [0.5, True]}}}}
    ).rows()
    expected = [(a, "c", e) for a in "12" for e in ("0.5", "True")]
    assert [tuple(row.values()) for row in rows] == expected
    assert list(rows[0]) == ["a", "b", "d.e"]


@pytest.mark.parametrize("value", [3, 1.0e-4, 2.5, True, "adam", "[id_cos,mse]", ["a", "b"]])
def test_values_are_spelled_as_wandbs_agent_spells_them(value):
    (row,) = sweep({"model.x": {"values": [value]}}).rows()
    assert [f"{k}={v}" for k, v in row.items()] == create_sweep_command_args({"args": {"model.x": {"value": value}}})[
        "args_no_hyphens"
    ]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"min": 1, "max": 5}, Range(1, 5, integer=True)),
        ({"min": 0.5, "max": 5}, Range(0.5, 5)),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, Range(1e-4, 1e-2, log=True)),
        ({"distribution": "log_uniform", "min": -3, "max": 0}, Range(math.exp(-3), 1, log=True)),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, Range(0, 1, quantum=0.25)),
        ({"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8}, Range(8, 64, True, True, 8)),
        ({"distribution": "categorical", "values": ["a"]}, Choice(("a",))),
    ],
)  # fmt: skip
def test_distributions(node, expected):
    assert dimension(**node) == expected


def test_a_range_is_spelled_in_its_steps_and_short():
    assert Range(8, 64, True, True, 8).spell(27.3) == "24"
    assert Range(0, 1, quantum=0.25).spell(0.62) == "0.5"
    assert Range(0, 1).spell(1 / 3) == "0.333333"
    assert Range(1e-5, 1).spell(1.23456789e-5) == "1.23457e-05"
    assert Range(0, 1, quantum=0.25).steps() == ("0", "0.25", "0.5", "0.75", "1")
    assert Range(2, 4, integer=True).steps() == ("2", "3", "4")
    assert Range(0, 1).steps() is None


def test_a_command_is_the_programs_with_the_row_where_wandb_would_put_it():
    spec = sweep({"x": {"value": 1}}, command=[*COMMAND[1:3], "scale=base", *COMMAND[3:]])
    words = spec.command_line({"x": "1"}, ["outputs=o", "name=s/trial-0"], ["seed=3"])
    assert words[1:] == ["train.py", "scale=base", "x=1", "seed=3", "outputs=o", "name=s/trial-0"]


def test_hyperbands_first_bracket():
    assert sweep({"x": {"value": 1}}, early_terminate={"type": "hyperband", "min_iter": 4}).early == Early(4, 3)
    node = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3}
    assert sweep({"x": {"value": 1}}, early_terminate=node).early == Early(3, 3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"methode": "grid"}, r"\['methode'\] is not understood; it may have program, method"),
        ({"method": "genetic"}, "method: got 'genetic', expected grid, random, bayes"),
        ({"metric": None}, "metric: got None, expected {name"),
        ({"metric": {"name": "m", "goal": "least"}}, "metric.goal: got 'least', expected minimize, maximize"),
        ({"metric": {"name": "m", "target": 3}}, r"metric: \['target'\] is not understood"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "strict": True}}, r"\['strict'\] is not understood"),
        ({"program": None}, "program: got None"),
        ({"command": ["${program}", "${args}"]}, "Hydra's overrides have no hyphens"),
        ({"run_cap": 0}, "run_cap: got 0"),
        ({"parameters": {}}, "nothing to sweep"),
        ({"parameters": {"x": 3}}, r"parameters.x: got 3, expected value, values, or min and max"),
        ({"parameters": {"x": {"min": 0.0, "max": 1.0}}}, r"\['x'\] have no end of values"),
        ({"parameters": {"x": {"min": 3, "max": 1}}}, "min 3 and max 1 are no range"),
        ({"parameters": {"x": {"min": 0, "max": 1, "distribution": "log_uniform_values"}}}, "no range above 0"),
        ({"parameters": {"x": {"min": 0, "max": 1, "distribution": "normal"}}}, "distribution: got 'normal', expected"),
        ({"parameters": {"x": {"mu": 0, "sigma": 1}}}, r"\['mu', 'sigma'\] is not understood"),
        ({"parameters": {"x": {"values": [1, None]}}}, "None is no override"),
        ({"parameters": {"x": {"values": [1, 1]}}}, "holds a value twice"),
        ({"parameters": {"x": {"values": []}}}, "expected a list with a value or more"),
        ({"early_terminate": {"type": "median"}}, "early_terminate.type: got 'median'"),
        ({"early_terminate": {"type": "hyperband"}}, "expected min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1.5}}, "eta: got 1.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(more, message):
    with pytest.raises(SweepError, match=message):
        sweep(**({"parameters": {"x": {"value": 1}}} | more))


def test_files_that_are_no_sweeps(tmp_path):
    with pytest.raises(SweepError, match=r"none\.yaml cannot be read"):
        read_spec(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(SweepError, match=r"bad\.yaml cannot be read"):
        read_spec(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(SweepError, match="has no keys"):
        read_spec(tmp_path / "list.yaml")

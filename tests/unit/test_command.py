"""Small commands: options as typed, help with explanations, errors as one line."""

import sys
from dataclasses import dataclass, field

import pytest

from fitdiff.command import parse, run_command, usable_device


@dataclass
class Inner:
    depth: float = 0.5


@dataclass
class Options:
    path: str = "out"  # where to
    name: str | None = None
    n: int = 3  # how many
    loud: bool = False
    sizes: list[int] = field(default_factory=lambda: [1])
    inner: Inner = field(default_factory=Inner)


def test_words_become_typed_options():
    options = parse(["path=a [b], c=1", "name=null", "n=4", "loud=true", "sizes=[2,3]", "inner.depth=1"], Options)
    assert (options.path, options.name, options.n, options.loud) == ("a [b], c=1", None, 4, True)
    assert (list(options.sizes), options.inner.depth) == ([2, 3], 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n"], "key=value"),
        (["n=many"], "many"),
        (["nn=1"], "nn"),
        (["inner.depht=1"], "depht"),
        (["path=bad"], "no bad"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(words, message, monkeypatch, capsys):
    def work(options, console):
        if options.path == "bad":
            raise ValueError("no bad [paths]")

    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(SystemExit) as ended:
        run_command(work, Options, "Does nothing.")
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), ImportError("no module"), PermissionError(13, "may not write")],
    ids=lambda e: type(e).__name__,
)
def test_what_a_user_can_mend_is_no_traceback(error, monkeypatch, capsys):
    def work(options, console):
        raise error

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as ended:
        run_command(work, Options, "Does nothing.")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_device_that_works_is_given():
    assert usable_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu"])
def test_a_device_that_does_not_work_is_a_user_s_error(name):
    with pytest.raises(ValueError, match=rf"got device={name}, which does not work here \([^\n]+\); give cpu, or cuda"):
        usable_device(name)


def test_help_explains_every_option(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    run_command(lambda *_: pytest.fail("it ran"), Options, "Does nothing.")
    text = capsys.readouterr().out
    assert text.startswith("Does nothing.")
    for line in ("path=out", "name=null", "n=3", "loud=false", "inner.depth=0.5", "how many"):
        assert line in text

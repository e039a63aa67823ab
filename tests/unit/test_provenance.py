"""Provenance: the commit of the code that runs, what was changed since, and what differs between two runs."""

import json
import subprocess

import pytest

from fitdiff.training.provenance import differences, git_state, provenance


@pytest.fixture
def repository(tmp_path):
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    git_state.cache_clear()
    yield tmp_path / "code", git
    git_state.cache_clear()


def test_commit_and_changes_are_told(repository):
    folder, git = repository
    commit = git("rev-parse", "HEAD")
    assert git_state(folder) == {"commit": commit, "changes": None}
    seen = set()
    for text in ("a = 2\n", "a = 3\n"):
        before = git_state(folder)
        (folder / "a.py").write_text(text)
        assert git_state(folder) == before, "read once: running code does not change"
        git_state.cache_clear()
        seen.add(git_state(folder)["changes"])
    assert len(seen) == 2
    assert None not in seen
    git("checkout", "-q", ".")
    (folder / "new.py").touch()
    git_state.cache_clear()
    assert git_state(folder)["changes"] is not None


def test_a_package_inside_anothers_repository_is_not_of_that_commit(repository):
    folder, _ = repository
    installed = folder / "site-packages"
    installed.mkdir()
    (installed / "b.py").touch()
    assert git_state(installed) is None
    assert git_state(folder / "missing") is None


def test_it_is_plain_and_names_what_can_change_a_result():
    origin = provenance("d1", {"shape_model": "7"}, 2)
    assert json.loads(json.dumps(origin)) == origin
    assert (origin["data"], origin["components"], origin["processes"]) == ("d1", {"shape_model": "7"}, 2)
    assert {"python", "fitdiff", "torch"} <= origin["packages"].keys()


def test_differences_are_named_by_leaf():
    theirs = {"a": {"b": 1, "c": [1, 2]}, "gone": {"x": 1}, "git": None}
    ours = {"a": {"b": 2, "c": [1, 2]}, "new": None, "git": {"commit": "f"}}
    assert differences(theirs, ours) == [
        "a.b: checkpoint 1, this run 2",
        "gone: checkpoint {'x': 1}, this run nothing",
        "git: checkpoint None, this run {'commit': 'f'}",
        "new: checkpoint nothing, this run None",
    ]
    assert differences(theirs, theirs) == []

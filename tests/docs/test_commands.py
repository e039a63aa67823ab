"""Every command of README and docs runs: with its documented arguments, and after them those that make it tiny.

In one process, in a folder laid out as the reader's. What takes hours even so (networks of `scale=base`, whole
experiments) is composed or has its options read; what needs what nobody has here is marked in the page.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from fitdiff import registry
from fitdiff.cli import hydra_word
from fitdiff.command import parse
from fitdiff.registry import ComponentError
from tests.conftest import ROOT, TINY
from tests.docs.documented import GATED, NEEDS, Command, distinct

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

COMMANDS = [command for command in distinct() if command.needs is None]
GATED_COMMANDS = [
    c for c in distinct() if c.needs == GATED and c.words[:1] == ("python",) and c.words[1].endswith(".py")
]
SCRIPTS = {"train.py", "prepare.py", "fit.py", "sample.py", "evaluate.py"}
TINY_FIT = ("fitting.steps=2", "fitting.size=96")
TINY_DATA = tuple(word for word in TINY if word.startswith("data."))
TINY_TRAINING = (
    *(word for word in TINY if not word.startswith(("name=", "data."))),
    "tracker=none", "data.cache=cache", "outputs=trained",
)  # fmt: skip
LARGE = {"scale=base", "scale=paper", "data=shards"}
"""What makes a command of Hydra's one that is composed alone."""
MODULES = {
    "fitdiff.data.people": ("n=3", "size=64"),
    "fitdiff.data.folder": (),
    "fitdiff.renderer.turntable": ("frames=2", "size=64"),
    "experiments.training.curves": ("publish=false",),
}
"""Small commands that run, and what makes them tiny; of every other module the options are read."""


def astronaut(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(skimage.data.astronaut()[:256, 96:352]).save(path)


@pytest.fixture(scope="module")
def workshop(tiny_run, tmp_path_factory):
    """A folder as a reader's after `make demo`: photos, the trained runs, and what else earlier commands leave."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("conf", "launch", "sweeps", "experiments", "examples", "constraints.txt", *SCRIPTS):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    for name in (
        "me.jpg",
        "you.jpg",
        "me and my (cat).jpg",
        "a.jpg",
        "b.jpg",
        "c, d.jpg",
        "holiday/1.jpg",
        "group.jpg",
    ):
        astronaut(folder / name)
    shutil.copytree(tiny_run.parent, folder / "outputs", ignore=shutil.ignore_patterns("cache", "wandb"))
    for name in ("fitdiff-laptop", "fitdiff_separate-laptop"):
        shutil.copytree(folder / "outputs" / "tiny", folder / "outputs" / name)
    (folder / "trained").mkdir()  # what the training commands write: fits above stay of one checkpoint
    shutil.copytree(tiny_run.parent / "stages", folder / "trained" / "stages")
    shutil.copytree(tiny_run.parent / "cache", folder / "cache")
    texture = np.full((64, 64, 3), 128, np.uint8)
    Image.fromarray(texture).save(folder / "half.png")
    Image.fromarray((np.arange(64) < 32).astype(np.uint8)[None].repeat(64, 0) * 255).save(folder / "known.png")
    return folder


@pytest.fixture(scope="module")
def reader(workshop):
    """The process as the reader's shell: in the folder, with the example's package installed."""
    registry.load_plugins()
    store, kept = ConfigStore.instance(), dict(registry._components)
    groups = {kind: dict(store.repo[kind]) for kind in ("renderer", "guidance")}
    before, path, argv = Path.cwd(), list(sys.path), list(sys.argv)
    os.chdir(workshop)
    sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "fitdiff-plugin-toon")]
    importlib.import_module("fitdiff_toon")
    prepared(workshop)
    yield workshop
    os.chdir(before)
    sys.path[:], sys.argv[:] = path, argv
    sys.modules.pop("fitdiff_toon")
    store.repo.update(groups)
    registry._components.clear()
    registry._components.update(kept)


def prepared(workshop: Path) -> None:
    """What readers have from earlier commands: fits of two people, an embedding, people in a folder, a film."""
    execute("fit.py", "photo=me.jpg", "guidance=[mse]", "fitting.refine_steps=0", *TINY_FIT)
    fits = workshop / "outputs" / "fits"
    for name in ("you", "me and my (cat)"):
        shutil.copytree(fits / "me", fits / name)
    execute("-m", "fitdiff.data.people", "out=example", "n=3", "size=64")
    shutil.copytree("example", "DIR")
    for file in Path("DIR").glob("*/shape.json"):  # scale=laptop has the leading 96 of these components
        file.write_text(json.dumps({"identity": json.loads(file.read_text())["identity"][:96]}))
    from fitdiff import FitDiff

    model = FitDiff.load("outputs/fitdiff-laptop/model")
    np.save(workshop / "me.npy", model.embed("me.jpg").embedding[0].numpy())
    if importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        frame = np.ascontiguousarray(skimage.data.astronaut()[:256, 96:352])
        writer = imageio_ffmpeg.write_frames("film.mp4", (256, 256), fps=5)
        writer.send(None)
        for _ in range(2):
            writer.send(frame)
        writer.close()


def execute(*words: str) -> None:
    """`python WORDS` in this process.

    Raises:
        AssertionError: it ended with another code than 0.
    """
    GlobalHydra.instance().clear()
    module = words[0] == "-m"
    sys.argv[:] = [words[1] if module else str(ROOT / words[0]), *words[1 + module :]]
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise AssertionError(f"python {' '.join(words)} ended with {end.code}") from end
    finally:
        GlobalHydra.instance().clear()


def first_values(words) -> list[str]:
    """Overrides of a grid as those of its first job, launched here."""
    chosen = []
    for word in words:
        if word in ("-m", "--multirun") or word.startswith("hydra/launcher="):
            continue
        override = OverridesParser.create().parse_override(hydra_word(word)) if "${" not in word else None
        if override is not None and override.is_sweep_override():
            chosen.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        else:
            chosen.append(word)
    return chosen


def hydra_command(script: str, words: list[str]) -> None:
    """One of the entry points, tiny, or composed where its networks are large."""
    if launchers := [word for word in words if word.startswith("hydra/launcher=")]:
        execute(script, *launchers, "--cfg", "job")  # there is such a launcher
    words = [word for word in first_values(words) if "${stage" not in word]
    if script == "train.py" and (LARGE & set(words) or any(word.startswith("experiment=") for word in words)):
        execute(script, *words, "--cfg", "job", "--resolve")
    elif script == "train.py":
        people = () if "data=folder" in words else TINY_DATA
        execute(script, *words, *TINY_TRAINING, *people)
    elif script == "prepare.py":
        execute(script, *words, *TINY_DATA, "data.n=2", "data.held_out=1", "data.shard_size=1", "data.cache=cache_made",
                *random_identity(words))  # fmt: skip
    elif script == "fit.py":
        refine = () if "fitting=adam" in words else ("fitting.refine_steps=0",)
        execute(script, *words, *TINY_FIT, *refine)
    elif script == "sample.py":
        walk = ("n=2",) if any(word.startswith("n=") for word in words) else ()
        execute(script, *words, "steps=2", *walk, *TINY_FIT, "fitting.refine_steps=0")
    else:
        execute(script, *words, "--cfg", "job", "--resolve")
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("evaluate", [hydra_word(word) for word in words])
        registry.build(config.benchmark, "benchmark")  # which knows its options' values


def random_identity(words) -> tuple[str, ...]:
    """`scale=paper` selects a network whose weights are a download; that the data is made is what counts here."""
    return ("identity.weights=random",) if "scale=paper" in words else ()


def module_command(name: str, words: list[str]) -> None:
    """`python -m`: runs where that is cheap; else the module is there and takes these options."""
    if name in MODULES:
        execute("-m", name, *words, *MODULES[name])
        return
    if importlib.util.find_spec(f"{name}.__main__" if _is_package(name) else name) is None:
        raise AssertionError(f"there is no module {name}")
    module = importlib.import_module(f"{name}.__main__" if _is_package(name) else name)
    if not callable(getattr(module, "main", None)):
        execute("-m", name, "--help")
    if words:
        parse(words, module.Options)


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def pip_command(words: list[str]) -> None:
    """`pip install`: the requirements, extras, files and folders that are named exist; nothing is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {re.split(r"[<>=\[ ]", r)[0] for listed in (project["dependencies"], *extras.values()) for r in listed}
    for word in words:
        name, _, extra = word.partition("[")
        if word.startswith("-") or word in ("install", "uninstall"):
            continue
        if extra:
            assert name in ("fitdiff", "."), word
            assert set(extra.rstrip("]").split(",")) <= set(extras), word
        elif "/" in word or "." in word:
            assert (ROOT / word).exists(), word
        else:
            assert word in known | {"fitdiff-plugin-toon"}, f"{word} is in no extra"


def make_command(words: list[str]) -> None:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tool_command(words: list[str]) -> None:
    """A program that a package of the environment brings: it is there, and has what is asked of it."""
    tool = Path(sys.executable).with_name(words[0])
    assert tool.exists(), f"{words[0]} is not installed"
    commands = [word for word in words[1:2] if re.fullmatch(r"[a-z]+", word)]
    done = subprocess.run([tool, *commands, "--help"], capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in text]
    assert not unknown, f"{words[0]} has no {unknown}"


TOOLS = {"wandb", "trackio", "tensorboard", "mlflow", "optuna", "mkdocs"}


def check(words: list[str]) -> None:
    """Run, compose or look up one command line.

    Raises:
        AssertionError: it fails, or it is of no kind that this knows: mark it, or teach it here.
    """
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # FITDIFF_CACHE=... python
        words = words[1:]
    if "&&" in words:
        cut = words.index("&&")
        check(words[:cut])
        check(words[cut + 1 :])
        return
    program = Path(words[0]).name
    if words == [".", ".venv/bin/activate"] or (program == "python" and words[1:3] == ["-m", "venv"]):
        return
    if program == "python" and words[1] == "-m":
        module_command(words[2], words[3:])
    elif program == "python" and words[1] in SCRIPTS:
        hydra_command(words[1], words[2:])
    elif program == "accelerate":
        script = words.index("train.py")
        tool_command(words[:script])
        if "--config_file" in words:
            assert (ROOT / words[words.index("--config_file") + 1]).exists()
        hydra_command("train.py", words[script + 1 :])
    elif program in ("pip", "make"):
        {"pip": pip_command, "make": make_command}[program](words[1:])
    elif program in TOOLS:
        tool_command(words)
    else:
        raise AssertionError(f"{words[0]}: neither checked nor marked with what it needs")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command(command: Command, reader):
    with contextlib.redirect_stdout(sys.stderr):
        check(list(command.words))


@pytest.mark.parametrize("command", GATED_COMMANDS, ids=str)
def test_a_command_for_gated_data_composes(command: Command, reader):
    script, words = command.words[1], first_values(command.words[2:])
    with contextlib.redirect_stdout(sys.stderr):
        if script == "evaluate.py":
            hydra_command(script, words)
        else:
            execute(script, *words, "--cfg", "job", "--resolve")


def test_marks_are_known_and_few():
    marked = [command for command in distinct() if command.needs]
    assert {part for command in marked for part in command.needs.split(", ")} <= set(NEEDS)
    assert len(marked) < len(COMMANDS) / 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python fit.py photo=me.jpg fitting.stepz=3", "ended with"),
        ("python fit.py photo=nobody.jpg", "ended with 2"),
        ("python train.py scale=base model=fitdif", "ended with"),
        ("python evaluate.py benchmark=people 'benchmark.methods=[rigde]'", "rigde"),
        ("python prepare.py -m hydra/launcher=no_such", "ended with"),
        ("python -m fitdiff.no_such_module", "there is no module"),
        ("python -m experiments.people.measure people=3", "people"),
        ("make no-such-target", "no-such-target"),
        ("pip install 'fitdiff[nothing]'", "nothing"),
        ("pip install no-such-package", "in no extra"),
        ("wandb sync --no-such-option", "no-such-option"),
        ("curl https://example.org", "neither checked nor marked"),
    ],
)
def test_a_wrong_command_is_told(line, message, reader):
    with pytest.raises((AssertionError, OmegaConfBaseException, ComponentError), match=message):
        check(shlex.split(line))

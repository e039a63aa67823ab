"""What the entry points share: plug-ins before Hydra composes, file names as people type them, errors as one line."""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, TextColumn

from fitdiff.config import plain, register_schemas
from fitdiff.registry import ComponentError, load_plugins

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What writing says when a disk, a quota or a file-size limit is used up."""

PATH_KEYS = ("photo", "out", "checkpoint", "outputs", "data.path", "data.url", "data.cache", "shape_model.path")
"""Overrides whose value is a file name: quoted on the user's behalf."""


MULTIRUN = ("-m", "--multirun")
"""Flags that argparse accepts before or after all overrides, but not between them."""


def prepare() -> None:
    """Register every component and schema, and quote file names in `sys.argv`. Call before `hydra.main` composes."""
    load_plugins()
    register_schemas()
    arguments = [quote_path(argument) for argument in sys.argv[1:]]
    sys.argv[1:] = sorted(arguments, key=lambda argument: argument not in MULTIRUN)


def quote_path(argument: str) -> str:
    """Quote `photo=my (1), a=b.jpg` for Hydra's override grammar, unless the user already quoted it.

    Spaces, brackets, commas, equals signs, quotes, `$` and non-ASCII letters all have a meaning there.
    """
    match = re.fullmatch(rf"(\+*(?:{'|'.join(map(re.escape, PATH_KEYS))})=)(.*)", argument, re.DOTALL)
    if not match or re.fullmatch(r"(['\"]).*\1|null|", match[2], re.DOTALL):
        return argument
    escaped = re.sub(r'(\\*)(?="|$)', lambda m: m[1] * 2, match[2]).replace('"', r"\"")
    # OmegaConf would resolve ${...}; an escaped dollar stays a dollar.
    return f'{match[1]}"{escaped}"'.replace("${", r"\${")


def guarded(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Errors that a user can mend become one line and exit code 2; anything else stays a traceback.

    A run that a signal stopped says so, and ends with 0.
    """

    @functools.wraps(function)
    def wrapper(config: DictConfig) -> None:
        from fitdiff.alignment.photo import PhotoError
        from fitdiff.storage import CheckpointError
        from fitdiff.training.health import TrainingError
        from fitdiff.training.interruption import InterruptedRun

        mendable = (PhotoError, CheckpointError, ComponentError, TrainingError, FileNotFoundError)
        process = int(os.environ.get("RANK", "0"))  # as launchers number those that train together
        try:
            function(config)
        except InterruptedRun as stop:
            if process == 0:
                _print(f"{_one_line(stop)}; the same command continues")
            sys.exit(0)
        except OSError as error:
            if error.errno not in DISK_FULL and not isinstance(error, mendable):
                raise
            _fail(process, error)
        except mendable as error:
            _fail(process, error)

    return wrapper


def _fail(process: int, error: Exception) -> None:
    where = f" (process {process})" if process else ""
    _print(f"[bold red]error{where}:[/] {_one_line(error)}")
    sys.exit(2)


def _print(message: str) -> None:
    Console(stderr=True).print(message, soft_wrap=True, highlight=False)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).replace("[", r"\[")


class FitProgress:
    """Progress of a fit with ETA and losses; silent before the first step, so that an early error stands alone."""

    def __init__(self, console: Console) -> None:
        columns = (*Progress.get_default_columns(), TextColumn("{task.fields[losses]}"))
        self.bar = Progress(*columns, console=console)
        self.task = self.bar.add_task("fitting", total=None, losses="")

    def __enter__(self) -> FitProgress:
        return self

    def __call__(self, done: int, total: int, terms: dict[str, float]) -> None:
        """One step is done: an `OnStep` of `fitting`."""
        self.bar.start()
        losses = " · ".join(f"{name} {value:.3g}" for name, value in terms.items())
        self.bar.update(self.task, total=total, completed=done, losses=losses)

    def __exit__(self, *_: object) -> None:
        if self.bar.live.is_started:
            self.bar.stop()


def run_prepare(config: DictConfig) -> None:
    """`prepare.py`: make job `config.shard` of `config.shards` of the data, or say what all jobs have left.

    Raises:
        DataError: there is no such job; or, with `config.check`, files are missing.
    """
    from fitdiff.data.shard_file import DataError
    from fitdiff.data.sources import build_data
    from fitdiff.model import versions_of
    from fitdiff.registry import build
    from fitdiff.training.interruption import Interruption

    load_plugins()  # launchers run this in processes that know nothing yet
    if not 0 <= config.shard < config.shards:
        raise DataError(f"shard={config.shard}; with shards={config.shards} give 0 to {config.shards - 1}")
    shape_model = build(config.shape_model, "shape_model")
    identity = build(config.identity, "identity").eval().requires_grad_(False)
    renderer = build(config.renderer, "renderer", topology=shape_model.topology)
    data, _ = build_data(config, shape_model, identity, renderer, versions_of(shape_model))
    if not config.check:
        with Interruption():
            data.prepare(config.shard, config.shards)
    missing = data.missing()
    left = f"{len(missing)} files are missing, the first is {missing[0]}" if missing else "everything is there"
    if missing and config.check:
        raise DataError(f"{left}: run the jobs again, what is there is not made again")
    Console(stderr=True).print(
        f"job {config.shard} of {config.shards} is done; {left}", soft_wrap=True, highlight=False
    )


def run_fit(config: DictConfig) -> Path:
    """`fit.py`: fit `config.photo` with `config.checkpoint` and write the avatar's folder."""
    from fitdiff.alignment.photo import PhotoError, load_photo
    from fitdiff.model import FitDiff

    if config.photo in ("", "???"):
        raise PhotoError("no photo given: python fit.py photo=me.jpg")
    console = Console(stderr=True)
    photo = load_photo(config.photo)
    model = FitDiff.load(config.checkpoint, config.device)
    choices = {key: plain(config[key]) for key in ("sampler", "guidance", "fitting", "detector", "landmarks")}
    with FitProgress(console) as progress:
        fit = model.fit(photo, seed=config.seed, on_step=progress, **choices)
    folder = fit.save(config.out or Path("outputs/fits") / Path(config.photo).stem)
    for note in fit.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    console.print(fit.summary())
    console.print(f"results: [bold]{folder}[/] (avatar.glb, comparison.png, fit.json, ...)", soft_wrap=True)
    return folder


def run_sample(config: DictConfig) -> Path:
    """`sample.py`: sample `config.n` faces and write them as one picture, and as avatars if asked."""
    from fitdiff.alignment.photo import load_photo
    from fitdiff.avatar.pictures import save_png
    from fitdiff.model import FitDiff

    photo = load_photo(config.photo) if config.photo else None
    model = FitDiff.load(config.checkpoint, config.device)
    choices = {key: plain(config[key]) for key in ("sampler", "detector", "landmarks")}
    scale = {"steps": config.steps, "cfg_scale": config.cfg_scale, "seed": config.seed}
    faces = model.sample(config.n, photo=photo, **scale, **choices)
    name = Path(config.photo).stem if config.photo else "unconditional"
    folder = Path(config.out or Path("outputs/samples") / name)
    save_png(faces.sheet(), folder / "samples.png")
    if config.avatars:
        faces.save_avatars(folder)
    Console(stderr=True).print(f"results: [bold]{folder}[/] (samples.png)", soft_wrap=True)
    return folder

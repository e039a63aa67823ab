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
from rich.markup import escape

from fitdiff.config import plain, register_schemas
from fitdiff.registry import ComponentError, load_plugins

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What writing says when a disk, a quota or a file-size limit is used up."""

PATH_KEYS = (
    "photo", "face", "to", "texture", "mask", "out", "checkpoint", "outputs", "data.path", "data.url", "data.cache",
    "shape_model.path", "benchmark.path", "benchmark.predictions", "benchmark.pairs", "benchmark.images",
    "benchmark.topology",
)  # fmt: skip
"""Overrides whose value is a file name: quoted on the user's behalf."""

MAPPINGS = ("factors", "edit")
"""Overrides whose value is a mapping with keys of the user's own, which Hydra adds only where it is told to."""


MULTIRUN = ("-m", "--multirun")
"""Flags that argparse accepts before or after all overrides, but not between them."""


def prepare() -> None:
    """Register every component and schema, and quote file names in `sys.argv`. Call before `hydra.main` composes."""
    try:
        load_plugins()
    except ComponentError as error:
        _fail(_process(), error)
    register_schemas()
    arguments = [hydra_word(argument) for argument in sys.argv[1:]]
    sys.argv[1:] = sorted(arguments, key=lambda argument: argument not in MULTIRUN)


def hydra_word(argument: str) -> str:
    """An argument as Hydra takes it: file names quoted, mappings merged (`++factors={mse: 0}`)."""
    return f"++{argument}" if argument.partition("=")[0] in MAPPINGS else quote_path(argument)


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
        from fitdiff.command import DeviceError
        from fitdiff.evaluation.benchmark import BenchmarkError
        from fitdiff.faces import UseError
        from fitdiff.storage import CheckpointError
        from fitdiff.training.health import TrainingError
        from fitdiff.training.interruption import InterruptedRun

        mendable = (
            PhotoError,
            BenchmarkError,
            DeviceError,
            CheckpointError,
            ComponentError,
            TrainingError,
            UseError,
            FileNotFoundError,
        )
        process = _process()
        try:
            load_plugins()  # Hydra's launchers run this in processes that know nothing yet
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


def _process() -> int:
    """As launchers number those that train together."""
    return int(os.environ.get("RANK", "0"))


def _fail(process: int, error: Exception) -> None:
    where = f" (process {process})" if process else ""
    _print(f"[bold red]error{where}:[/] {_one_line(error)}")
    sys.exit(2)


def _print(message: str) -> None:
    Console(stderr=True).print(message, soft_wrap=True, highlight=False)


def _one_line(error: BaseException) -> str:
    # Bytes of a file name that are no UTF-8 are surrogates, which no terminal takes.
    text = str(error).encode("utf-8", "replace").decode()
    return " ".join(text.split()).replace("[", r"\[")


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
    """`fit.py`: fit the photos of `config.photo` with `config.checkpoint`; returns the folder of the results."""
    from fitdiff.album.command import fit_what_is_asked

    return fit_what_is_asked(config, Console(stderr=True))


def run_evaluate(config: DictConfig) -> Path:
    """`evaluate.py`: run the benchmark of `config.benchmark`; returns the folder of the results."""
    from fitdiff.evaluation.command import evaluate_what_is_asked

    return evaluate_what_is_asked(config, Console(stderr=True))


def run_sample(config: DictConfig) -> Path:
    """`sample.py`: make the faces that are asked for, and write them as one picture, and as avatars if asked."""
    from fitdiff.model import FitDiff
    from fitdiff.uses.command import draw_what_is_asked, publish_samples, results_folder

    asked = plain(config)
    folder = results_folder(asked)
    samples = draw_what_is_asked(FitDiff.load(config.checkpoint, config.device), asked)
    publish_samples(samples, folder, config.avatars)
    place = escape(str(folder).encode("utf-8", "replace").decode())  # names may hold markup, or bytes of no UTF-8
    Console(stderr=True).print(f"results: [bold]{place}[/] (samples.png, z.safetensors)", soft_wrap=True)
    return folder

"""Small commands, `python -m fitdiff.<module> key=value ...`: options from a dataclass, `--help`, errors as one line.

The entry points that compose configs (train.py, fit.py, sample.py) are Hydra's: see `cli`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

TEXTS = ("str", "str | None")
"""Types of options that are taken as typed: file names keep their brackets, commas and equals signs."""

SPELLED = {"None": "null", "True": "true", "False": "false", MISSING: "(must be given)"}
"""Defaults as they are written on the command line."""


def run_command(function: Callable[[Any, Console], None], options: type, text: str | None) -> None:
    """Read `sys.argv`, call `function(options, console)`, and turn errors that a user can mend into exit code 2.

    Args:
        function: does the work; the console is standard error's.
        options: dataclass of the options, whose comments at the ends of lines explain them.
        text: what `--help` says first.
    """
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(f"{(text or '').strip()}\n\nOptions and their defaults:\n" + "\n".join(_help(options)))
        return
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        function(parse(words, options), console)
    except OmegaConfBaseException as error:
        _fail(console, f"{str(error).splitlines()[0]}; --help lists the options")
    except (ValueError, ImportError, OSError) as error:
        _fail(console, str(error))


def parse(words: Sequence[str], options: type) -> Any:
    """`key=value` words as a typed config; `null` is None.

    Raises:
        ValueError: a word has no equals sign. OmegaConfBaseException: an unknown key, or a value of another type.
    """
    if wrong := [word for word in words if "=" not in word]:
        raise ValueError(f"got {wrong[0]!r}; options are written key=value, --help lists them")
    texts = {field.name for field in fields(options) if field.type in TEXTS}
    pairs = [word.partition("=")[::2] for word in words]
    verbatim = {key: None if value == "null" else value for key, value in pairs if key in texts}
    parsed = OmegaConf.from_dotlist([f"{key}={value}" for key, value in pairs if key not in texts])
    return OmegaConf.merge(OmegaConf.structured(options), parsed, verbatim)


class DeviceError(ValueError):
    """A device that is not there, or does not work."""


def usable_device(name: str | torch.device) -> torch.device:
    """The device of an option, once it is known to work; `auto` is CUDA if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"got device={name}, which does not work here ({reason}); give cpu, or cuda with a GPU"
        ) from error
    return device


def _help(options: type) -> Iterator[str]:
    comments = dict(re.findall(r"^    (\w+):.*?  # (.*)$", inspect.getsource(options), re.MULTILINE))
    for name, value in vars(options()).items():
        rows = [(f"{name}.{k}", v) for k, v in vars(value).items()] if is_dataclass(value) else [(name, value)]
        for key, default in rows:
            word = f"{key}={SPELLED.get(str(default), default)}"
            yield f"  {word:<36} {comments.get(name, '') if key == name else ''}".rstrip()


def _fail(console: Console, message: str) -> None:
    console.print(f"error: {message}", style="red")
    sys.exit(2)

"""Checkpoints of a stage: safetensors + JSON in a folder that appears whole or not at all.

A checkpoint is weights, optimiser state, averages and the step; the batch order and every random number are functions
of (seed, step), so nothing else is needed to continue exactly. Tensors are whole, so another number of processes may
continue. `step-00001200/state.json` is sealed: a flipped bit in it or in `state.safetensors` is found before anything
is loaded, and the checkpoint before it is taken.

Written in the foreground: a thread would need a second copy of everything that trains, to save seconds an hour.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from fitdiff.storage import (
    LEFT_BEHIND,
    CheckpointError,
    check_file,
    pack_modules,
    read_tensors,
    sync,
    unpack_modules,
    write_json,
    write_tensors,
)
from fitdiff.training.optimiser_state import PREFIX, Stateful, pack_optimisers, unpack_optimisers
from fitdiff.training.processes import on_all, on_main
from fitdiff.training.provenance import differences

FORMAT = 2
REFUSED = ("data", "components")
"""Parts of the provenance that must be the same to continue; others are told."""


class AnotherFormatError(CheckpointError):
    """A checkpoint that another version of fitdiff wrote: whole, so it is never set aside as damaged."""


class Checkpoints:
    """The checkpoints of one stage. Every method is collective: all processes call it, the main one writes.

    Args:
        folder: `step-<8 digits>` folders lie in it.
        config: resolved config of all that determines the stage's result, plain values. Another one is refused.
        provenance: of this run, see `provenance.provenance`; another `data` or `components` is refused.
        keep_last: newest checkpoints that stay (at least 1). keep_best: best ones that stay besides.
        monitor: the metric that decides what is best, and whether "min" or "max" of it is.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        keep_last: int = 2,
        keep_best: int = 1,
        monitor: tuple[str, str] | None = None,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ValueError(f"keep_last={keep_last} and keep_best={keep_best}; expected at least 1 and 0")
        if monitor is not None and monitor[1] not in ("min", "max"):
            raise ValueError(f"monitor is {monitor}; expected (metric, min or max)")
        self.folder, self.keep_last, self.keep_best, self.monitor = Path(folder), keep_last, keep_best, monitor
        # As JSON gives them back, so that a tuple equals the list that it became.
        self.config, self.provenance = (json.loads(json.dumps(dict(value))) for value in (config, provenance))

    def save(
        self,
        step: int,
        modules: Mapping[str, Stateful],
        optimisers: Mapping[str, Stateful],
        metrics: Mapping[str, float] | None = None,
    ) -> Path:
        """Write `step-<step>`, then delete the checkpoints that are neither among the newest nor the best.

        Args:
            step: steps done. metrics: held-out ones of this step, if there are any.

        Raises:
            CheckpointError: it cannot be written (a full disk); nothing half-written stays, no other is touched.
        """
        # In every process: the tensors of sharded modules are gathered by all of them together.
        tensors, values = pack_optimisers(optimisers)
        tensors = {name: _whole(value) for name, value in (pack_modules(modules) | tensors).items()}
        state = {
            "format": FORMAT,
            "step": step,
            "metrics": dict(metrics or {}),
            "optimisers": values,
            "config": self.config,
            "provenance": self.provenance,
        }
        return on_main(lambda: self._write(step, tensors, state))

    def resume(self, modules: Mapping[str, Stateful], optimisers: Mapping[str, Stateful]) -> int:
        """Restore the newest good checkpoint in place, the same in every process; damaged ones are told and set aside.

        Returns:
            The number of steps done; 0 if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints but none is good, or the newest good one belongs to another config,
                data or networks (all differences are named).
        """
        path = on_main(self._choose)
        return 0 if path is None else on_all(lambda: self._load(path, modules, optimisers))

    def newest(self) -> Path | None:
        """The newest checkpoint, if there is any."""
        return on_main(lambda: next(iter(self._found()), None))

    def best(self) -> Path | None:
        """The checkpoint with the best `monitor`, if any has it."""
        return on_main(lambda: next(iter(self._by_metric()), None))

    # --- writing -------------------------------------------------------------------------------------------------

    def _write(self, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> Path:
        target = self.folder / f"step-{step:08d}"
        if target.exists() and not _fault(target):
            return target  # the same step of the same run is the same state
        temporary = self._temporary("new", target)
        try:
            temporary.mkdir(parents=True)
            state["tensors"] = write_tensors(temporary / "state.safetensors", tensors)
            write_json(temporary / "state.json", {**state, "sha256": _digest(state)})
            if target.exists():
                self._discard(target)  # damaged: a good one has been returned
            os.replace(temporary, target)
            sync(self.folder)
        except OSError as error:
            raise CheckpointError(self._cannot_write(step, tensors, error)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._prune()
        return target

    def _cannot_write(self, step: int, tensors: Mapping[str, Tensor], error: OSError) -> str:
        need = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        nearest = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(nearest).free
        newest = next(iter(self._found()), None)
        kept = f"the newest checkpoint is {newest}" if newest else "there is no older checkpoint"
        return (
            f"step {step} could not be saved in {self.folder}: {error.strerror}. It needs {need / 1e6:.1f} MB, "
            f"{free / 1e6:.1f} MB are free; {kept}. Make room, and the same command continues from there"
        )

    def _prune(self) -> None:
        found = self._found()
        kept = {*found[: self.keep_last], *self._by_metric()[: self.keep_best]}
        for path in found:
            if path not in kept:
                self._discard(path)

    def _temporary(self, use: str, path: Path) -> Path:
        """A free name that no other process uses, and that tells `_sweep` whether its owner is alive."""
        temporary = self.folder / f".tmp-{use}-{path.name}-{socket.gethostname()}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        return temporary

    def _discard(self, path: Path) -> None:
        """Delete a checkpoint; if that is cut short, no half of one is left under its name."""
        aside = self._temporary("old", path)
        os.replace(path, aside)
        shutil.rmtree(aside, ignore_errors=True)

    # --- reading -------------------------------------------------------------------------------------------------

    def _found(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _by_metric(self) -> list[Path]:
        """Checkpoints that have the monitored metric, best first."""
        if self.monitor is None:
            return []
        name, mode = self.monitor
        values = {}
        for path in self._found():
            with suppress(CheckpointError):  # damaged: it is told when a run continues
                values[path] = _read_state(path)["metrics"].get(name)
        known = {path: value for path, value in values.items() if value is not None and value == value}
        return sorted(known, key=lambda path: known[path], reverse=mode == "max")

    def _choose(self) -> Path | None:
        """The newest good checkpoint, once it is known to belong to this run."""
        self._sweep()
        damaged: dict[Path, str] = {}
        for path in self._found():
            if fault := _fault(path):
                damaged[path] = fault
                continue
            self._refuse(path, _read_state(path))
            if damaged:
                _tell(f"{'; '.join(damaged.values())}: set aside as damaged-*, training continues from {path.name}")
                for bad in damaged:
                    _set_aside(bad)
            return path
        if damaged:
            raise CheckpointError(
                f"no checkpoint of {self.folder} is good: {'; '.join(damaged.values())}. Restore one, or delete the "
                "folder to train from the start"
            )
        return None

    def _refuse(self, path: Path, state: Mapping[str, Any]) -> None:
        theirs = state["provenance"]
        config = differences(state["config"], self.config)
        origin = differences(*({key: part.get(key) for key in REFUSED} for part in (theirs, self.provenance)))
        if faults := config + origin:
            raise CheckpointError(
                f"{path} belongs to another run: {'; '.join(faults)}. Use what it was made with, another name=..., or "
                "delete that folder"
            )
        if changes := differences(theirs, self.provenance):
            _tell(f"{path.name} was made with something else: {'; '.join(changes)}")

    def _load(self, path: Path, modules: Mapping[str, Stateful], optimisers: Mapping[str, Stateful]) -> int:
        state = _read_state(path)
        tensors = read_tensors(path / "state.safetensors", state["tensors"])
        of_optimisers = {name: tensors.pop(name) for name in list(tensors) if name.startswith(PREFIX)}
        unpack_modules(tensors, modules)
        unpack_optimisers(of_optimisers, state["optimisers"], optimisers)
        return int(state["step"])

    def _sweep(self) -> None:
        """Delete temporary folders that killed processes left behind."""
        for path in self.folder.glob(".tmp-*"):
            match = re.fullmatch(r"\.tmp-(?:new|old)-step-\d+-(.+)-(\d+)", path.name)
            # Another machine's processes cannot be seen.
            if match and (not _alive(int(match[2])) if match[1] == socket.gethostname() else _age(path) > LEFT_BEHIND):
                shutil.rmtree(path, ignore_errors=True)


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Raises AnotherFormatError."""
    try:
        check_file(path / "state.safetensors", _read_state(path)["tensors"])
    except AnotherFormatError:
        raise
    except CheckpointError as error:
        return str(error)
    return None


def _read_state(path: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint, once its seal is checked."""
    file = path / "state.json"
    try:
        state = json.loads(file.read_bytes())
        seal, version = state.pop("sha256", None), state.get("format")
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: not the sealed JSON that was written") from error
    if version != FORMAT and isinstance(version, int) and seal in (None, _digest(state)):
        raise AnotherFormatError(
            f"{file} has format {version}, this version reads {FORMAT}: use the version of fitdiff that wrote it, "
            "another name=..., or delete that folder"
        )
    if seal != _digest(state):
        raise CheckpointError(f"{file} has changed since it was written (its SHA-256 is another)")
    return state


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _set_aside(path: Path) -> None:
    target = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(path, target)


def _whole(tensor: Tensor) -> Tensor:
    """A tensor that is sharded over processes, gathered on the CPU; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather().cpu()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True


def _age(path: Path) -> float:
    """Seconds since a folder was written to; 0 once it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _tell(message: str) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"warning: {message}", style="yellow")

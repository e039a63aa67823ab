"""Tensors and JSON on disk: every file appears whole or not at all, and nothing is ever unpickled."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

SAFETENSORS_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names of the element types in a safetensors header."""

CHUNK = 1 << 24
"""Bytes that are hashed and written at a time."""


LEFT_BEHIND = 24 * 3600
"""Seconds after which a temporary file counts as left by a process that was killed."""


class CheckpointError(ValueError):
    """Saved weights are missing, damaged, or not those that are asked for."""


def cache_folder() -> Path:
    """Where what is built once lies: `$FITDIFF_CACHE`, or the platform's user cache folder."""
    return Path(os.environ.get("FITDIFF_CACHE") or platformdirs.user_cache_dir("fitdiff"))


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends, and leaves no trace if it raises.

    The bytes go to a temporary name in the same folder (renaming is atomic only within one file system), reach the
    disk, and are renamed; no reader ever sees half a file. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; an exported file gets the permissions of any new file.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync(path.parent)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` as `atomic_file` does; returns the path."""
    with atomic_file(path) as file:
        file.write(data)
    return Path(path)


def sync(path: Path) -> None:
    """Make the names in a folder, or the content of a file, last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # a file system that cannot, such as some network shares
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete what killed processes left of `atomic_file` in a folder: nobody writes one file for a day."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND:
                path.unlink()


def link_or_copy(source: Path, target: Path) -> Path:
    """Let `target` be a file with the content of `source`: a hard link where the file system can, else a copy.

    A target that exists is replaced. Missing parent folders are created.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        temporary = Path(folder) / "file"
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
        os.replace(temporary, target)
    return target


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically."""
    return write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None if it is missing or damaged, so that it is made again."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write safetensors atomically.

    Tensors go to the disk one by one, so the extra memory is one chunk, and one tensor where they are on a GPU.

    Returns:
        The file's seal, its size and SHA-256: what `check_file` knows it by.
    """
    digest, size = hashlib.sha256(), 0
    with atomic_file(path) as file:
        for part in _safetensors_parts(tensors):
            for start in range(0, len(part), CHUNK):
                chunk = part[start : start + CHUNK]
                digest.update(chunk)
                size += file.write(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _safetensors_parts(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """The bytes of a safetensors file: length of the header, header (JSON), tensors."""
    # Wide types first, so that every tensor is aligned for readers that map the file.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = SAFETENSORS_TYPES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(struct.pack("<Q", len(text)) + text)
    for _, tensor in ordered:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        flat = flat.as_strided(flat.shape, (1,))  # one element counts as contiguous whatever its stride
        yield memoryview(flat.view(torch.uint8).numpy())


def check_file(path: Path, seal: Mapping[str, Any]) -> None:
    """Raise unless a file is bit for bit the one that got this seal.

    Raises:
        CheckpointError: it is missing, shorter or longer, or has other content; the message says which.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if (size := path.stat().st_size) != seal.get("bytes"):
        raise CheckpointError(f"{path} has {size} bytes, {seal.get('bytes')} were written")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != seal.get("sha256"):
        raise CheckpointError(f"{path} has changed since it was written (its SHA-256 is another)")


def read_tensors(path: Path, seal: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU.

    Args:
        seal: as `write_tensors` gave it; the file is checked against it.

    Raises:
        CheckpointError: missing, not safetensors, or not the file that got the seal.
    """
    if seal is not None:
        check_file(path, seal)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def tensor_shapes(path: Path) -> dict[str, torch.Size]:
    """Shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        CheckpointError: missing, not safetensors, or a header that does not fit the file.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def pack_modules(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """State dicts of several modules under `name/`."""
    return {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def unpack_modules(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load what `pack_modules` packed.

    Raises:
        CheckpointError: tensors are missing, left over, or of another shape; all of them are named, nothing is loaded.
    """
    refuse_misfits({name: value.shape for name, value in tensors.items()}, modules)
    for name, module in modules.items():
        prefix = f"{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        module.load_state_dict(state, strict=True)


def refuse_misfits(shapes: Mapping[str, torch.Size], modules: Mapping[str, nn.Module]) -> None:
    """Raise `CheckpointError` unless tensors of these names and shapes are just those of the modules."""
    expected = {name: value.shape for name, value in pack_modules(modules).items()}
    faults = [f"{name} is missing" for name in expected.keys() - shapes.keys()]
    faults += [f"{name} is unknown" for name in shapes.keys() - expected.keys()]
    faults += [
        f"{name} has shape {list(shapes[name])}, expected {list(expected[name])}"
        for name in expected.keys() & shapes.keys()
        if shapes[name] != expected[name]
    ]
    if faults:
        raise CheckpointError(f"weights of another network: {'; '.join(sorted(faults))}")

"""One file of safetensors, read row by row straight into batches.

The safetensors library maps files into memory, and the system then brings a row that is not cached page by page: on a
cold disk a hundred times slower than one positional read of the whole row. The format itself is a length, a JSON header
and the tensors' bytes (huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from fitdiff.registry import ComponentError
from fitdiff.storage import SAFETENSORS_TYPES

TYPES = {name: dtype for dtype, name in SAFETENSORS_TYPES.items()}
LONGEST_HEADER = 1 << 24

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading JSON of another kind than the expected one raises."""


class DataError(ComponentError):
    """A data set is not there, cannot be read, or is not what the run needs."""


@dataclass(frozen=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # byte in the file


class ShardFile:
    """An open file. Reads name their place, so forked processes may share it.

    Raises:
        FileNotFoundError: there is no such file. DataError: it is no whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1  # for __del__, should opening fail
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._entries = self._read_header(os.fstat(self._descriptor).st_size)
        except (*MALFORMED, struct.error) as error:
            raise DataError(f"{path} is no whole safetensors file ({error}): delete it, it is made again") from error

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def empty(self, key: str, n: int) -> Tensor:
        """An uninitialised tensor for `n` rows of a tensor."""
        entry = self._entry(key)
        return torch.empty(n, *entry.shape[1:], dtype=entry.dtype)

    def read_rows(self, key: str, row: int, out: Tensor) -> None:
        """Copy the rows of a tensor from `row` on into `out`, which is contiguous and of its type.

        Raises:
            DataError: there is no such tensor or row, or `out` does not fit: files of a set differ.
        """
        entry = self._entry(key)
        fits = out.shape[1:] == entry.shape[1:] and out.dtype == entry.dtype
        if not fits or not 0 <= row <= entry.shape[0] - len(out):
            wanted = f"{list(out.shape)} {out.dtype} from row {row} of {key}"
            raise DataError(f"{self.path}: {wanted} is asked for, it holds {entry.dtype} {list(entry.shape)}")
        self._read(entry.start + row * (out.nbytes // max(1, len(out))), out)

    def read(self, key: str) -> Tensor:
        """A whole tensor."""
        entry = self._entry(key)
        out = torch.empty(entry.shape, dtype=entry.dtype)
        self._read(entry.start, out)
        return out

    def _entry(self, key: str) -> _Entry:
        if key not in self._entries:
            raise DataError(f"{self.path} has no {key!r}, it has {sorted(self._entries)}")
        return self._entries[key]

    def _read(self, start: int, out: Tensor) -> None:
        view = memoryview(out.reshape(-1).view(torch.uint8).numpy())
        done = 0
        while done < len(view):
            count = os.preadv(self._descriptor, [view[done:]], start + done)
            if not count:
                raise DataError(f"{self.path} ends {len(view) - done} bytes early: it was changed while it was read")
            done += count

    def _read_header(self, size: int) -> dict[str, _Entry]:
        (length,) = struct.unpack("<Q", os.pread(self._descriptor, 8, 0))
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(os.pread(self._descriptor, length, 8))
        entries, end = {}, 8 + length
        for key, node in header.items():
            if key == "__metadata__":
                continue
            start = 8 + length + int(node["data_offsets"][0])
            entry = _Entry(TYPES[node["dtype"]], tuple(map(int, node["shape"])), start)
            last = entry.start + prod(entry.shape) * entry.dtype.itemsize
            if min(entry.shape, default=0) < 0 or entry.start < 8 + length or last > size:
                raise ValueError(f"{key} lies at bytes {entry.start} to {last} of {size}")
            entries[key], end = entry, max(end, last)
        if end != size:
            raise ValueError(f"{size} bytes, {end} are described")
        return entries

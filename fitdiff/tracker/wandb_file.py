"""Read the `.wandb` file of an offline run, which W&B writes and no public function of its package reads.

The framing is LevelDB's log format: blocks of 32 KiB hold records, each with a header of CRC-32, length (little-endian
uint16) and type; a record that does not fit is split in a first, middle and last part. Seven bytes precede the first
block's records. Each record is a protocol buffer, `wandb.proto.wandb_internal_pb2.Record`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC, HEADER, BLOCK = b":W&B", 7, 1 << 15
WHOLE, FIRST, _, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """The records in their order; what a killed process left unfinished at the end is left out.

    Raises:
        ValueError: not a file of W&B.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    for data in _frames(path):
        record = Record()
        record.ParseFromString(data)
        yield record


def history(path: Path) -> Iterator[dict[str, Any]]:
    """What was logged: one dict a call, with W&B's own `_step`."""
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            entry: dict[str, Any] = {}
            for item in record.history.item:
                *outer, name = item.nested_key or [item.key]
                inner = entry
                for key in outer:
                    inner = inner.setdefault(key, {})
                inner[name] = json.loads(item.value_json)
            yield entry


def _frames(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    if data[:4] != MAGIC:
        raise ValueError(f"{path} begins with {data[:4]!r}, expected {MAGIC!r}: not an offline run of W&B")
    position, parts = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too small for a record: padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER
        if kind == 0 or position + length > len(data):
            return
        part = data[position : position + length]
        position += length
        parts = part if kind in (WHOLE, FIRST) else parts + part
        if kind in (WHOLE, LAST):
            yield parts

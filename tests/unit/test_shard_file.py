"""Rows read by place are those that the safetensors library reads; a file that is not whole is refused."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from fitdiff.data.shard_file import DataError, ShardFile
from fitdiff.data.shards import ShardedDataset, shard_path

TYPES = (torch.uint8, torch.int64, torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool)


@pytest.fixture
def path(tmp_path):
    """Written by the library, with metadata, a scalar a row and an empty tensor."""
    torch.manual_seed(0)
    tensors = {str(dtype): (100 * torch.randn(5, 2, 3)).to(dtype) for dtype in TYPES}
    tensors |= {"flag": torch.arange(5), "nothing": torch.zeros(5, 0)}
    save_file(tensors, tmp_path / "shard-000000.safetensors", {"made by": "a test"})
    return tmp_path / "shard-000000.safetensors"


def same(a, b):
    return a.dtype == b.dtype and torch.equal(a, b)


def test_rows_and_tensors_are_the_librarys(path):
    file, truth = ShardFile(path), load_file(path)
    for key, tensor in truth.items():
        assert same(file.read(key), tensor), key
        rows = file.empty(key, 3)
        for place, row in enumerate((4, 0, 4)):
            file.read_rows(key, row, rows[place : place + 1])
        assert same(rows, tensor[[4, 0, 4]]), key


def test_a_data_set_gathers_in_the_order_that_was_asked(path, tmp_path):
    torch.manual_seed(1)
    save_file({key: tensor.flip(0).contiguous() for key, tensor in load_file(path).items()}, shard_path(tmp_path, 1))
    data = ShardedDataset(tmp_path, 9, 5, open_shards=1)
    whole = torch.cat([load_file(shard_path(tmp_path, i))["torch.float32"] for i in range(2)])
    assert torch.equal(data.gather([7, 0, 8, 3, 7], ["torch.float32"])["torch.float32"], whole[[7, 0, 8, 3, 7]])
    assert torch.equal(data.load("torch.float32"), whole[:9])


@pytest.mark.parametrize(("damage", "message"), [
    (lambda data: data[:-1], "lies at bytes|are described"),
    (lambda data: data + b"x", "bytes, .* are described"),
    (lambda data: data[:40], "a header of"),
    (lambda data: b"", "unpack requires"),
    (lambda data: b"\x80\x04pickled" + data, "a header of"),
    (lambda data: data.replace(b"U8", b"Q8"), "Q8"),
])  # fmt: skip
def test_a_damaged_file_is_named(path, damage, message):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"shard-000000.safetensors is no whole safetensors file .*({message})"):
        ShardFile(path)


@pytest.mark.parametrize("node", [
    {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]},
    {"dtype": "F32", "shape": [1]},
    {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [1], "data_offsets": []},
    7,
])  # fmt: skip
def test_a_strangers_header_reads_nothing_outside_of_its_file(tmp_path, node):
    text = json.dumps({"x": node}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(DataError, match="is no whole safetensors file"):
        ShardFile(path)


@pytest.mark.parametrize("text", [b"[]", b"7", b"[" * 100_000], ids=["list", "number", "deep"])
def test_a_header_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(DataError, match="is no whole safetensors file"):
        ShardFile(path)


def test_files_of_a_set_that_differ_are_refused(tmp_path):
    for number, rows in enumerate((2, 1)):  # one row would spread over two
        save_file({"x": torch.zeros(rows, 3)}, shard_path(tmp_path, number))
    with pytest.raises(DataError, match=r"\[2, 3\] torch.float32 from row 0 of x is asked for, it holds .*\[1, 3\]"):
        ShardedDataset(tmp_path, 4, 2).load("x")


def test_a_single_missing_file_has_no_others(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"shard-000000.safetensors is missing: run"):
        ShardedDataset(tmp_path, 1, 2)


def test_what_does_not_fit_is_refused(path):
    file = ShardFile(path)
    with pytest.raises(DataError, match=r"has no 'maps', it has \['flag'"):
        file.read("maps")
    with pytest.raises(
        DataError, match=r"\[1\] torch.int64 from row 5 of flag is asked for, it holds torch.int64 \[5\]"
    ):
        file.read_rows("flag", 5, torch.empty(1, dtype=torch.int64))
    with pytest.raises(DataError, match=r"\[1\] torch.float32 from row 0 of flag"):
        file.read_rows("flag", 0, torch.empty(1))


def test_a_file_that_shrinks_while_it_is_open_is_an_error_and_no_garbage(path):
    file = ShardFile(path)
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    last = max(header.keys() - {"__metadata__"}, key=lambda key: header[key]["data_offsets"][1])
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(DataError, match=r"ends 8 bytes early"):
        file.read(last)


def test_files_are_closed(path):
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else pytest.skip("needs /proc")
    for _ in range(10):
        ShardFile(path)
        with pytest.raises(FileNotFoundError):
            ShardFile(path.with_name("nobody"))
    assert len(os.listdir("/proc/self/fd")) == before

"""Files that are whole or not there, tensors that stream to the disk, seals that tell a file from another."""

import os
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from fitdiff.storage import (
    SAFETENSORS_TYPES,
    CheckpointError,
    atomic_file,
    check_file,
    pack_modules,
    read_tensors,
    refuse_misfits,
    sweep,
    tensor_shapes,
    unpack_modules,
    write_json,
    write_tensors,
)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    some = {str(kind): torch.randint(0, 2, (3, 5), generator=generator).to(kind) for kind in SAFETENSORS_TYPES}
    wide = torch.randn(4, 6, generator=generator)
    return some | {
        "transposed": wide.T, "strided": wide[::2, 1::2], "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 7),
        "with gradient": nn.Parameter(wide), "ünï/code": torch.ones(1, dtype=torch.bfloat16),
    }  # fmt: skip


def test_tensors_are_read_back_by_the_safetensors_library(tmp_path):
    path = tmp_path / "new" / "t.safetensors"
    seal = write_tensors(path, tensors())
    found = load_file(path)
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert tensor_shapes(path) == {name: tensor.shape for name, tensor in tensors().items()}
    check_file(path, seal)
    assert read_tensors(path, seal).keys() == found.keys()


def test_the_bytes_are_those_that_the_safetensors_library_writes(tmp_path):
    # Of one type: among types of one width, the library has an order of its own.
    some = {name: torch.randn(n, 3) for n, name in enumerate(("b", "a", "c/d"), 1)}
    write_tensors(tmp_path / "t", some)
    assert (tmp_path / "t").read_bytes() == save(some)


def test_one_number_of_a_strided_tensor_is_written(tmp_path):
    column = torch.arange(6.0).view(3, 2)[:1, 1]
    assert column.stride() == (2,)
    write_tensors(tmp_path / "a.safetensors", {"x": column})
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == [1.0]


def test_writing_tensors_copies_no_more_than_one(tmp_path):
    many = {str(i): torch.zeros(1000, 250) for i in range(16)}  # 16 x 1 MB
    tracemalloc.start()
    write_tensors(tmp_path / "t", many)
    _, peak = tracemalloc.get_traced_memory()  # what Python allocates: bytes objects, not tensors
    tracemalloc.stop()
    assert peak < 1e6, f"{peak} bytes for 16 MB of tensors"


def test_a_block_that_raises_leaves_the_old_file_and_no_other(tmp_path):
    path = write_json(tmp_path / "file", 1)

    def fail() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_lasts_like_the_content(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    write_json(tmp_path / "file", 1)
    assert len(synced) == 2
    assert synced[1] == str(tmp_path), "the folder comes after the rename"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: p.unlink(), "is missing"),
        (lambda p: os.truncate(p, 50), "has 50 bytes, .* were written"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\xff"), "has changed since"),
    ],
)
def test_a_file_that_is_not_the_sealed_one_is_refused(tmp_path, harm, message):
    path = tmp_path / "t"
    seal = write_tensors(path, {"a": torch.zeros(9)})
    harm(path)
    with pytest.raises(CheckpointError, match=message):
        read_tensors(path, seal)


def header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95pickle",
        header(b"{}", 2**63),
        header(b"{}", 10**12),
        header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + bytes(4),
        header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + bytes(4),
        header(b'{"a":{"dtype":"O","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
        header(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
        )
        + bytes(1),
        header(b"[" * 100_000),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, content):
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    for read in (read_tensors, tensor_shapes):
        with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
            read(path)


def test_only_what_was_left_long_ago_is_swept(tmp_path):
    for name in (".x.tmp", ".new.tmp", "x.tmp"):
        (tmp_path / name).touch()
    for name in (".x.tmp", "x.tmp"):
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.tmp", "x.tmp"]


def test_modules_come_back_and_misfits_are_all_named():
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    packed = pack_modules({"net": first})
    unpack_modules(packed, {"net": second})
    assert torch.equal(first.weight, second.weight)
    wide = nn.Linear(4, 2)
    before = wide.bias.clone()
    with pytest.raises(CheckpointError, match=r"net/weight has shape \[2, 3\], expected \[2, 4\]"):
        unpack_modules(packed, {"net": wide})
    assert torch.equal(wide.bias, before), "nothing is loaded if not all fits"
    packed["other/weight"] = packed.pop("net/bias")
    with pytest.raises(CheckpointError, match=r"net/bias is missing; other/weight is unknown"):
        unpack_modules(packed, {"net": second})
    with torch.device("meta"):
        refuse_misfits({"net/weight": torch.Size([2, 3]), "net/bias": torch.Size([2])}, {"net": nn.Linear(3, 2)})

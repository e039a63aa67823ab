"""Stored faces: what is written is read, and only where it means the same."""

import numpy as np
import pytest
import torch

from fitdiff import FitDiff
from fitdiff.faces import Faces, UseError, find_faces, load_embedding, load_faces, meaning, save_faces
from fitdiff.storage import CheckpointError, write_tensors


@pytest.fixture(scope="module")
def model(tiny_run):
    return FitDiff.load(tiny_run / "model", "cpu")


def faces_of(model, n=3):
    generator = torch.Generator().manual_seed(0)
    return Faces(
        torch.randn(n, model.latent.length, generator=generator),
        torch.randn(n, model.identity.dim, generator=generator),
    )


def test_what_is_written_is_read_bit_for_bit(model, tmp_path):
    faces = faces_of(model)
    path = save_faces(model, faces, tmp_path)
    for source in (tmp_path, path):
        read = load_faces(model, source)
        assert torch.equal(read.z, faces.z)
        assert torch.equal(read.embedding, faces.embedding)
    save_faces(model, Faces(faces.z), tmp_path)
    assert load_faces(model, tmp_path).embedding is None


def test_faces_of_another_checkpoint_are_refused(model, tmp_path):
    save_faces(model, faces_of(model), tmp_path)
    mean = model.latent.mean.clone()
    try:
        model.latent.mean += 1e-3
        with pytest.raises(CheckpointError, match="another checkpoint"):
            load_faces(model, tmp_path)
    finally:
        model.latent.mean.copy_(mean)
    load_faces(model, tmp_path)


def test_bad_files_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such face"):
        load_faces(model, tmp_path / "nobody")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a face")
    with pytest.raises(CheckpointError, match="broken"):
        load_faces(model, broken)
    write_tensors(broken, {"z": torch.full((1, model.latent.length), float("nan"))})
    with pytest.raises(CheckpointError, match="holds no faces"):
        load_faces(model, broken)
    z, embedding = torch.zeros(1, model.latent.length), torch.zeros(1, model.identity.dim)
    for tensors, message in (
        ({"z": z.double()}, "holds no faces"),
        ({"z": z.half()}, "holds no faces"),
        ({"z": z.long()}, "holds no faces"),
        ({"z": z, "embedding": embedding.double()}, "finite float32"),
        ({"z": z, "embedding": embedding / 0}, "finite float32"),
    ):
        write_tensors(broken, {**tensors, "meaning": meaning(model)})
        with pytest.raises(CheckpointError, match=message):
            load_faces(model, broken)
    with pytest.raises(UseError, match="fit it first"):
        Faces(embedding=torch.zeros(1, 4)).require_z()


@pytest.mark.parametrize("shape", [(), (1,)])
def test_embeddings_come_from_npy(model, tmp_path, shape):
    values = np.random.default_rng(0).normal(size=(*shape, model.identity.dim))
    np.save(tmp_path / "me.npy", values)
    faces = find_faces(model, tmp_path / "me.npy", {})
    assert faces.z is None
    np.testing.assert_allclose(faces.embedding.numpy(), values.reshape(1, -1).astype(np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(7), r"shape \(7,\)"),
        (np.array(["a"] * 128), "expected numbers"),
        (np.array([{}] * 128, dtype=object), "cannot be read"),  # would have to be unpickled
        (np.full(128, np.nan), "not finite"),
    ],
)
def test_other_arrays_are_refused(model, tmp_path, content, message):
    np.save(tmp_path / "x.npy", content)
    with pytest.raises(UseError, match=message):
        load_embedding(model, tmp_path / "x.npy")


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }".ljust(127)
        + b"\n",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order'".ljust(127) + b"\n",
        b"PK\x03\x04 no archive",
        b"",
    ],
)
def test_damaged_arrays_are_refused_before_they_get_memory(model, tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UseError, match="cannot be read"):
        load_embedding(model, tmp_path / "x.npy")

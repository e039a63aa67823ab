"""The embedded face model at its defaults, a tiny one of a cache of its own, and how to put an expression on."""

import subprocess
import sys

import pytest
import torch

from fitdiff.shape_model import AnnyFace

TINY = {"subdivisions": 0, "population": 400}


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory):
    """Two processes that build the same model at the same moment into one empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    total = f"AnnyFace(**{TINY}).identity_basis.double().sum()"
    code = f"from fitdiff.shape_model import AnnyFace; print(float({total}).hex())"
    environment = {"FITDIFF_CACHE": str(folder), "PATH": "", "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    printed = [run.communicate() for run in runs]
    return folder, [out.strip() for out, _ in printed], [err for _, err in printed]


@pytest.fixture(scope="session")
def tiny(tiny_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FITDIFF_CACHE", str(tiny_cache[0]))
        return AnnyFace(**TINY)


@pytest.fixture(scope="session")
def face():
    return AnnyFace()


@pytest.fixture(scope="session")
def marks(face):
    """(68, 3) landmarks of the mean face."""
    return face.topology.landmarks(face.mean[None])[0]


@pytest.fixture(scope="session")
def act(face):
    """Vertices of faces with the named actions at the given weights."""

    def act(codes=None, **weights):
        codes = torch.zeros(1, face.n_identity) if codes is None else codes
        expression = torch.zeros(len(codes), face.n_expression)
        for name, weight in weights.items():
            expression[:, face.expression_names.index(name)] = weight
        return face(codes, expression)

    return act

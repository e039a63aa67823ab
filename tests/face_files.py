"""Small face models in the real layouts of other people's files, made from the embedded face: same keys, units, axes.

The people of each are combinations of two bumps, so that every number that a reader gives back is known.
"""

import functools
import json
import pickle
import sys
import types as python_types
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitdiff.shape_model import AnnyFace
from fitdiff.shape_model.charts import parts

KINDS = ("flame", "bfm_2009", "bfm_2017", "ict_facekit", "gnm", "hifi3d", "pca_npz")
N_IDENTITY, N_EXPRESSION = 3, 2


@dataclass(frozen=True)
class Truth:
    """mean (V, 3) mm in head space, faces (F, 3), identity (3, V, 3) and expression (2, V, 3) mm, landmarks (68, 3) mm,
    uv (V, 2) v down, eyes (V,) bool."""

    mean: np.ndarray
    faces: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    landmarks: np.ndarray
    uv: np.ndarray
    eyes: np.ndarray


@functools.cache
def truth() -> Truth:
    """A person who is not the embedded mean face, on the coarse mesh, larger and out of place."""
    face = AnnyFace(subdivisions=0)
    code = np.zeros((1, face.n_identity), np.float32)
    code[0, :4] = [1.5, -1.0, 1.0, -0.5]
    import torch

    vertices = face(torch.from_numpy(code))
    marks = face.topology.landmarks(vertices)[0].double().numpy()
    place = np.array([3.0, 8.0, -20.0])
    mean = 1.06 * vertices[0].double().numpy() + place
    marks = 1.06 * marks + place
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_IDENTITY + N_EXPRESSION, 3)) * [30, 40, 10] + mean.mean(0)
    heights = 6 * np.exp(-((mean[None] - centres[:, None]) ** 2).sum(-1) / (2 * 30**2))
    fields = heights[..., None] * rng.normal(size=(len(centres), 1, 3))
    eyes = face.topology.regions["eyes"].numpy()
    faces = face.topology.faces.numpy()
    return Truth(mean, faces, fields[:N_IDENTITY], fields[N_IDENTITY:], marks, face.topology.uv.numpy(), eyes)


def write(kind: str, folder: Path) -> Path:
    """Write a model in the layout of `kind`; returns what `shape_model.path` is set to."""
    return {
        "flame": write_flame, "bfm_2009": write_bfm_2009, "bfm_2017": write_bfm_2017, "ict_facekit": write_ict,
        "gnm": write_gnm, "hifi3d": write_hifi3d, "pca_npz": write_pca_npz,
    }[kind](folder)  # fmt: skip


def columns(fields: np.ndarray) -> np.ndarray:
    """(K, V, 3) -> (3V, K)."""
    return fields.reshape(len(fields), -1).T


def write_flame(folder: Path) -> Path:
    """A Python 2 pickle with chumpy and SciPy objects, as FLAME 2020's; its UVs beside it."""
    t = truth()
    arrays = {
        "v_template": t.mean / 1000,
        "f": t.faces.astype(np.uint32),
        "shapedirs": chumpy(np.concatenate([t.identity, t.expression]).transpose(1, 2, 0) / 1000),
        "bs_style": "lbs",
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        **skeleton(t),
    }
    path = folder / "generic_model.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=2).replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n"))
    np.savez(folder / "FLAME_texture.npz", vt=t.uv * [1, -1] + [0, 1], ft=t.faces)
    return path


def skeleton(t: Truth) -> dict:
    from scipy import sparse

    chin = t.mean[:, 1] < t.landmarks[66, 1]
    weights = np.zeros((len(t.mean), 5))
    weights[np.arange(len(t.mean)), np.where(chin, 2, 1)] = 1
    regressor = np.zeros((5, len(t.mean)))
    regressor[2, jaw_hinge(t)] = 0.5
    return {
        "weights": weights,
        "J_regressor": sparse.csc_matrix(regressor),
        "posedirs": chumpy(np.zeros((len(t.mean), 3, 36))),
    }


def jaw_hinge(t: Truth) -> list[int]:
    """The vertices before the ears, between which the jaw's joint is."""
    return [int(((t.mean - mark) ** 2).sum(1).argmin()) for mark in t.landmarks[[0, 16]]]


def chumpy(array: np.ndarray) -> object:
    """An object that pickles as chumpy's `Ch` does; chumpy itself cannot be imported by today's NumPy."""
    module = sys.modules.setdefault("chumpy", python_types.ModuleType("chumpy"))
    inner = sys.modules.setdefault("chumpy.ch", python_types.ModuleType("chumpy.ch"))
    if not hasattr(inner, "Ch"):
        inner.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
        module.ch = inner
    made = inner.Ch()
    made.__dict__.update(x=array, _dirty_vars=[], _itr=None)
    return made


def write_bfm_2009(folder: Path) -> Path:
    from scipy.io import savemat

    t, deviation = truth(), np.linspace(900, 300, N_IDENTITY)[:, None]
    arrays = {
        "shapeMU": t.mean.reshape(-1, 1) * 1000,
        "shapePC": columns(t.identity) * 1000 / deviation.T,
        "shapeEV": deviation,
        # The original's triangles turn the other way round.
        "tl": t.faces[:, ::-1].astype(np.float64) + 1,
    }
    savemat(folder / "01_MorphableModel.mat", arrays)
    return folder / "01_MorphableModel.mat"


def write_bfm_2017(folder: Path) -> Path:
    import h5py

    t, path = truth(), folder / "model2017-1_face12_nomouth.h5"
    with h5py.File(path, "w") as file:
        for part, fields, mean in (("shape", t.identity, t.mean * 0.9), ("expression", t.expression, t.mean * 0.1)):
            variance = np.linspace(9, 2, len(fields))
            file[f"{part}/model/mean"] = mean.ravel()
            file[f"{part}/model/pcaBasis"] = columns(fields) / np.sqrt(variance)
            file[f"{part}/model/pcaVariance"] = variance
            file[f"{part}/representer/cells"] = t.faces.T
        file["metadata/landmarks/json"] = "[]"
    return path


def write_ict(folder: Path) -> Path:
    """Centimetres, polygons with texture corners, a texture square (UDIM) per material, 1-based ids."""
    t, folder = truth(), folder / "FaceXModel"
    folder.mkdir()
    eye = t.eyes[t.faces].all(1)

    def obj(vertices: np.ndarray, faces: bool = False) -> str:
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices / 10]
        if faces:
            lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in t.uv] + [f"vt {1 + u:.6f} {1 - v:.6f}" for u, v in t.uv]
            for material, mine, shift in (("M_Face", ~eye, 0), ("M_ScleraLeft", eye, len(t.mean))):
                lines += [f"usemtl {material}"]
                lines += ["f " + " ".join(f"{i + 1}/{i + 1 + shift}" for i in face) for face in t.faces[mine]]
        return "\n".join(lines) + "\n"

    names = ["jawOpen", "mouthSmile_L"]
    landmarks = [int(((t.mean - mark) ** 2).sum(1).argmin()) for mark in t.landmarks]
    meshes = {f"identity{k:03d}": t.mean + field for k, field in enumerate(t.identity)}
    meshes |= {name: t.mean + field for name, field in zip(names, t.expression, strict=True)}
    (folder / "generic_neutral_mesh.obj").write_text(obj(t.mean, faces=True))
    for name, vertices in meshes.items():
        (folder / f"{name}.obj").write_text(obj(vertices))
    (folder / "vertex_indices.json").write_text(json.dumps({"expressions": names, "idx_to_landmark_verts": landmarks}))
    return folder


def write_gnm(folder: Path) -> Path:
    t, path = truth(), folder / "gnm_head.npz"
    eye = t.eyes[t.faces].all(1)
    uv = (t.uv * [1, -1] + [0, 1])[t.faces] + np.where(eye, 1, 0)[:, None, None] * [1, 0]
    np.savez(
        path,
        template_vertex_positions=(t.mean / 1000).astype(np.float32),
        vertex_identity_basis=(t.identity / 1000).astype(np.float32),
        expression_basis=(t.expression / 1000).astype(np.float32),
        identity_names=np.array([f"head_{k:03d}" for k in range(N_IDENTITY)]),
        expression_names=np.array([f"lower_face_region_{k:03d}" for k in range(N_EXPRESSION)]),
        triangles=t.faces.astype(np.int32),
        triangle_uvs=uv.astype(np.float32),
        vertex_group_names=np.array(["skin", "eyes"]),
        vertex_groups=np.stack([~t.eyes, t.eyes]).astype(np.float32),
        version=np.array("3.0"),
    )
    nearest = [int(((t.mean - mark) ** 2).sum(1).argmin()) for mark in t.landmarks]
    (folder / "head_sparse_68.txt").write_text("\n".join(f"{i} 1.0 {i} 0.0 {i} 0.0" for i in nearest))
    return path


def write_hifi3d(folder: Path) -> Path:
    from scipy.io import savemat

    t, path = truth(), folder / "hifi3dpp.mat"
    arrays = {
        "mu_shape": t.mean.reshape(1, -1) / 10,
        "basis_shape": columns(t.identity).T / 10,
        "basis_exp": columns(t.expression).T / 10,
        "EVs": np.ones((N_IDENTITY, 1)),
        "tri": (t.faces + 1).astype(np.int32),
        "tri_vt": (t.faces + 1).astype(np.int32),
        "vt_list": t.uv * [1, -1] + [0, 1],
        "keypoints": np.arange(86)[None],
        "mask_face": np.ones((1, len(t.mean))),
    }
    savemat(path, arrays)
    return path


def write_pca_npz(folder: Path) -> Path:
    """The least that a file of our own layout holds: no UVs, landmarks or regions; skin only, as most models are."""
    t, path = truth(), folder / "model.npz"
    main = parts(len(t.mean), t.faces) == 0
    np.savez(
        path, fitdiff_pca=1, mean=t.mean[main], faces=renumbered(t.faces, main), identity_basis=t.identity[:, main]
    )
    return path


def renumbered(faces: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Faces over the kept vertices (V,) bool, counted anew."""
    return (np.cumsum(keep) - 1)[faces[keep[faces].all(1)]]

"""Shape models: identity code and expression weights to vertices in head space."""

from fitdiff.shape_model.anny_face import AnnyFace
from fitdiff.shape_model.anny_population import Population, sample_population
from fitdiff.shape_model.bfm import Bfm
from fitdiff.shape_model.face_basis import FaceBasis, ModelFileError
from fitdiff.shape_model.flame import Flame
from fitdiff.shape_model.gnm import Gnm
from fitdiff.shape_model.hifi3d import Hifi3d
from fitdiff.shape_model.ict_facekit import IctFaceKit
from fitdiff.shape_model.linear import LinearFaceModel
from fitdiff.shape_model.pca_npz import PcaNpz

__all__ = [
    "AnnyFace", "Bfm", "FaceBasis", "Flame", "Gnm", "Hifi3d", "IctFaceKit", "LinearFaceModel", "ModelFileError",
    "PcaNpz", "Population", "sample_population",
]  # fmt: skip

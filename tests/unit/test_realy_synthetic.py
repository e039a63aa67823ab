"""Synthetic people in REALY's layout: the truth scores next to nothing, and the mean face does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fitdiff.evaluation.benchmark import Context
from fitdiff.evaluation.mesh_files import read_mesh
from fitdiff.evaluation.realy.benchmark import Realy
from fitdiff.evaluation.realy.folder import RealyFolder
from fitdiff.evaluation.realy.keypoints import DEFORMATION_KEYPOINTS, Keypoints
from fitdiff.evaluation.realy.synthetic import Options, write_folder, write_template
from fitdiff.evaluation.realy.synthetic_scan import region_faces
from fitdiff.registry import build, config_of
from fitdiff.types import Topology


@pytest.fixture(scope="module")
def shape_model():
    return build(config_of("shape_model", "anny_face"), "shape_model")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = Options(out=str(tmp_path_factory.mktemp("copy")), n=1, side=1, size=64, finer=0)
    return write_folder(options, Console(quiet=True))


def test_every_region_holds_the_keypoints_that_pull_it(shape_model) -> None:
    mean, topology = shape_model.mean.double().numpy(), shape_model.topology
    keypoints = Keypoints.of_topology(topology)(mean)

    for name, faces in region_faces(topology, mean).items():
        region = mean[np.unique(faces)]
        for i in DEFORMATION_KEYPOINTS[name]:
            assert np.linalg.norm(region - keypoints[i], axis=1).min() < 3.0, (name, i)


def test_the_template_has_the_landmarks_of_the_topology_on_anybody(shape_model, tmp_path: Path) -> None:
    template = write_template(tmp_path, shape_model.topology, shape_model.mean.double().numpy())
    person = shape_model(torch.full((1, shape_model.n_identity), 0.3))

    landmarks = shape_model.topology.landmarks(person)[0].numpy()

    # Landmarks between vertices that share no triangle lie a little off the surface.
    np.testing.assert_allclose(template(person[0].double().numpy())[:68], landmarks, atol=1.0)
    assert template.unknown == ""


def test_a_topology_without_regions_is_refused() -> None:
    bare = Topology(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(3, 2), torch.zeros(68, 3), torch.zeros(68, 3))
    with pytest.raises(ValueError, match=r"names no regions \['nose'"):
        region_faces(bare, np.zeros((3, 3)))


def test_the_truth_scores_nothing_and_the_mean_face_does(copy: Path, tmp_path: Path) -> None:
    def all_mm(system: str) -> float:
        options = {"predictions": str(copy / "predictions" / system), "topology": "anny_face", "workers": 1}
        found = Realy(path=str(copy), **options)(Context(lambda: None, {}, tmp_path / system, Console(quiet=True)))
        assert found.tables["nose_mouth"].published == []  # synthetic figures never stand beside published ones
        return found.summary["all_mm"]

    assert all_mm("truth") < 0.1 < 0.5 < all_mm("mean_face")


def test_the_layout_is_the_benchmarks(copy: Path) -> None:
    folder = RealyFolder.open(copy)
    assert list(folder.photos(None)) == ["1", "1_1"]
    assert folder.synthetic
    assert len(read_mesh(folder.keypoints[1]).vertices) == 85
    assert set(folder.scan(1).regions) == {"nose", "mouth", "forehead", "cheek"}


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        write_folder(Options(out=str(tmp_path), n=0), Console(quiet=True))

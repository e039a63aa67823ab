"""Identity codes of the embedded face model."""

import numpy as np
import pytest
import torch

from fitdiff.shape_model import AnnyFace, Population, anny_mesh, anny_population, makehuman, sample_population


def test_codes_of_fresh_people_are_whitened(face):
    codes = face.identity_of(sample_population(7, range(6000)))
    assert (codes.std(0) - 1).abs().max() < 0.1
    assert codes.mean(0).abs().max() < 0.1
    correlation = torch.corrcoef(codes.T) - torch.eye(face.n_identity)
    assert correlation.abs().mean() < 0.03


def test_encode_inverts_forward(face):
    torch.manual_seed(0)
    code = torch.randn(4, face.n_identity)
    assert torch.allclose(face.encode(face(code)), code, atol=1e-4)


def test_held_out_people_are_reproduced(face):
    everything = AnnyFace(n_identity=_components(face))
    people = sample_population(99, range(200))
    exact = everything(everything.identity_of(people))
    error = (face(face.encode(exact)) - exact).norm(dim=-1)
    assert error.mean() < 0.12
    assert error.flatten()[::8].quantile(0.95) < 0.3
    assert torch.allclose(face.encode(exact), face.identity_of(people), atol=2e-3)


def _components(face):
    with pytest.raises(ValueError, match="1 to") as refusal:
        AnnyFace(n_identity=10**6)
    return int(str(refusal.value).split("1 to ")[1].split(":")[0])


def test_fewer_components_are_the_first_ones(face):
    few, people = AnnyFace(n_identity=10, n_expression=5), sample_population(3, range(4))
    assert torch.equal(few.identity_basis, face.identity_basis[:10])
    assert few.expression_names == face.expression_names[:5]
    assert torch.allclose(few.identity_of(people), face.identity_of(people)[:, :10], atol=1e-6)
    assert torch.allclose(few.encode(face.mean[None] + 1), face.encode(face.mean[None] + 1)[:, :10], atol=1e-6)


def test_faces_have_one_size_and_one_place(face):
    """Size-normalised: area-weighted root mean square distance from the centroid, which is the origin."""
    faces = face(face.identity_of(sample_population(11, range(50)))).double()
    a, b, c = (face.mean.double()[face.topology.faces[:, k]] for k in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    weight = torch.zeros(len(face.mean), dtype=torch.double)
    weight = weight.index_add(0, face.topology.faces.ravel(), area.repeat_interleave(3))
    weight = weight / weight.sum()
    assert (weight @ faces).norm(dim=1).max() < 1
    size = ((faces**2).sum(-1) @ weight).sqrt()
    assert size.std() / size.mean() < 0.01


def test_a_person_is_the_base_mesh_plus_targets(tiny):
    """At no refinement landmarks are MakeHuman vertices: add the targets up by hand, compare up to size and place."""
    people = sample_population(0, range(2))
    plain = dict(gender=[1.0, 0.0], age=[0.0, 1.0], race=[[0, 0, 1.0], [1.0, 0, 0]])
    plain |= {name: [0.5, 0.5] for name in ("muscle", "weight", "height", "proportions")}
    local = torch.zeros_like(people.local)
    names = [modifier.name for modifier in anny_population.modifiers()]
    local[0, names.index("nose-scale-vert-incr")] = 2.0
    local[1, names.index("nose-scale-vert-incr")] = -2.0
    people = Population(people.index, local=local, **{k: torch.tensor(v) for k, v in plain.items()})
    base, paths = makehuman.read_base_mesh(), makehuman.target_paths("macrodetails")
    nose = makehuman.target_paths("nose")
    std = float(tiny.local_std[names.index("nose-scale-vert-incr")])
    marked = tiny(tiny.identity_of(people))
    corners = [(v, anny_mesh.LANDMARK_PARTNERS.get(k, v)) for k, v in enumerate(anny_mesh.LANDMARKS)]
    for i, (macro, change) in enumerate(
        [
            (("universal-male-young-averagemuscle-averageweight", "caucasian-male-young"), "nose-scale-vert-incr"),
            (("universal-female-old-averagemuscle-averageweight", "african-female-old"), "nose-scale-vert-decr"),
        ]
    ):
        body = base.vertices + sum(makehuman.read_target(paths[name], len(base.vertices)) for name in macro)
        body = body + 2 * std * makehuman.read_target(nose[change], len(base.vertices))
        ours, theirs = tiny.topology.landmarks(marked)[i].numpy(), body[corners].mean(1)
        ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
        theirs = theirs * np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert np.linalg.norm(ours - theirs, axis=1).mean() < 0.5

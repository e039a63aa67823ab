"""Faces made of faces: keep a part and draw the rest anew, walk from one person to another, move along components.

Legend of shape suffixes: n faces that come out · N length of z · D length of an embedding · E expressions.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from fitdiff.diffusion.sampler import Known, adds_noise, conditioned
from fitdiff.faces import Faces, UseError
from fitdiff.fitting import first_noise
from fitdiff.randomness import draw_normals
from fitdiff.registry import build
from fitdiff.uses.sampling import Samples, draw

KEEP = ("shape", "reflectance")
"""Parts of z that can be kept, in the order of `LatentSpace.parts`."""

STREAM = 1
"""Of `vary`'s noise: another than that of samples, or the kept face itself could be drawn again."""

INVERSION_ROUNDS = 4
"""Fixed-point rounds of a step of `invert`: each gains about one digit."""


def part_mask(model: Any, keep: str) -> Tensor:
    """(N,) bool, True at the part of z that is kept.

    Raises:
        UseError: the part is not one of `KEEP`.
    """
    if keep not in KEEP:
        raise UseError(f"keep={keep!r} is no part of a face: give one of {', '.join(KEEP)}")
    mask = torch.zeros(model.latent.length, dtype=torch.bool, device=model.device)
    mask[model.latent.parts[KEEP.index(keep)]] = True
    return mask


def vary(model: Any, faces: Faces, keep: str, n: int, *, seed: int = 0, **options: Any) -> Samples:
    """Keep one part of a face, bit for bit, and draw `n` others for the rest. (FitDiff, Fig. 5.)

    The kept part is put back, at its noise level, before every step, so that the rest is drawn to go with it.

    Args:
        faces: with one z; its embedding, if there is one, conditions what is drawn.
        keep: "shape" or "reflectance".
        options: of `sampling.draw`; `cfg_scale=0` draws without the identity: what else the kept part could go with.

    Returns:
        n + 1 faces, the first of which is the given one.
    """
    z = faces.require_z()[:1]
    embedding = None if faces.embedding is None else faces.embedding[:1].expand(n, -1)
    known = Known(z.expand(n, -1), part_mask(model, keep))
    noise = draw_normals(seed, torch.arange(n), STREAM, (model.latent.length,)).to(model.device)
    drawn = draw(model, noise, embedding, seed=seed, stream=STREAM, known=known, **options)
    everyone = None if embedding is None else torch.cat([embedding[:1], embedding])
    return Samples(
        model, torch.cat([z, drawn]), embedding=everyone, captions=("given", *[f"{k + 1}" for k in range(n)])
    )


def slerp(a: Tensor, b: Tensor, weight_n: Tensor) -> Tensor:
    """(n, L) from a (L,) to b (L,): directions along the great circle, lengths linearly; weight 0 is a, 1 is b.

    Gaussian noise lies near a sphere, and so do embeddings; a straight line would leave it. (Shoemake 1985.)
    """
    weight = weight_n[:, None]
    u, v = nnf.normalize(a, dim=0), nnf.normalize(b, dim=0)
    angle = torch.atan2((u - v).norm(), (u + v).norm()) * 2  # exact where the cosine rounds to 1
    if angle < 1e-4:
        return torch.lerp(a[None], b[None], weight)
    direction = (((1 - weight) * angle).sin() * u + (weight * angle).sin() * v) / angle.sin()
    return direction * torch.lerp(a.norm(), b.norm(), weight)


def interpolate(model: Any, first: Faces, second: Faces, n: int, *, seed: int = 0, **options: Any) -> Samples:
    """`n` faces from one person to another, both ends included.

    Identities alone: the same noise for all, and embeddings along the great circle between the two. Fits or samples:
    each face's own noise, which `invert` finds, goes along, too; what inversion misses at the ends is spread over the
    walk linearly, so that it begins and ends with the very faces given.

    Args:
        first, second: one face each, of one kind: both with z or without, both with an embedding or without.
        seed: of the noise where it is not inverted. options: of `sampling.draw`; the sampler must add no noise.

    Raises:
        UseError: fewer than two faces are asked for, the two are of different kinds, or the sampler adds noise.
    """
    if n < 2:
        raise UseError(f"got n={n}; a walk from face to face has at least its two ends: n=2 or more")
    if adds_noise(build(options.get("sampler") or model.config["sampler"], "sampler"), model.schedule):
        raise UseError("a walk needs a sampler that adds no noise, or neighbours would differ by it: give sampler=ddim")
    weight = torch.linspace(0, 1, n, device=model.device)
    embeddings = [faces.embedding for faces in (first, second)]
    if any(e is None for e in embeddings) != all(e is None for e in embeddings):
        raise UseError("one face has an identity and the other none: give two fits, two photos, or two samples alike")
    walk = None if embeddings[0] is None else slerp(embeddings[0][0], embeddings[1][0], weight)
    ends = [faces.z for faces in (first, second)]
    pictures = [f.photo for f in (first, second) if f.photo is not None]
    if any(z is None for z in ends) != all(z is None for z in ends):
        raise UseError(
            "one end is a face and the other an identity alone: fit its photo first, and give the fit's folder"
        )
    if ends[0] is None:
        if walk is None:
            raise UseError("the faces have neither an identity nor a z: give two fits or two photos")
        noise = first_noise(model, 1, 1, seed).expand(n, -1)
        z = draw(model, noise, walk, seed=seed, **options)
    else:
        own = torch.cat([z[:1] for z in ends])
        conditions = None if walk is None else walk[[0, -1]]
        noise = invert(model, own, conditions, **options)
        z = draw(model, slerp(noise[0], noise[1], weight), walk, seed=seed, **options)
        missed = own - z[[0, -1]]
        z = z + torch.lerp(missed[:1], missed[1:], weight[:, None])
        z[0], z[-1] = own
    captions = [f"{w:.0%}" for w in weight.tolist()]
    return Samples(model, z, pictures[0][0] if len(pictures) == 1 else None, walk, captions=captions)


@torch.no_grad()
def invert(
    model: Any,
    z_BN: Tensor,
    embedding_BD: Tensor | None = None,
    *,
    steps: int = 50,
    cfg_scale: float = 1.0,
    sampler: Mapping[str, Any] | None = None,
) -> Tensor:
    """(B, N) the noise from which DDIM draws z: its steps backwards. (Song et al. 2021, section 4.3.)

    The steps are those of the sampler (config node; None: the checkpoint's). Of one without noise that is not DDIM the
    noise is an approximation, since all of them follow the same flow.

    The step from t to the cleaner s, `z_s = a_s (z_t - b_t eps(z_t)) / a_t + b_s eps(z_t)`, is solved for z_t by
    fixed-point rounds. Exact up to their convergence, and where DDIM clamps nothing on the way.
    """
    schedule = model.schedule
    predict_eps = conditioned(model.denoiser, embedding_BD, cfg_scale)
    visited = build(sampler or model.config["sampler"], "sampler").timesteps(schedule, steps)
    z = z_BN
    for t, t_cleaner in zip(reversed(visited), (-1, *reversed(visited[1:])), strict=True):
        (a_t, b_t), (a_s, b_s) = (schedule.signal_and_noise(step, z) for step in (t, t_cleaner))
        z_t, step = z, torch.full((len(z),), t, device=z.device)
        for _ in range(INVERSION_ROUNDS):
            eps = predict_eps(z_t, step)
            z_t = a_t / a_s * (z - b_s * eps) + b_t * eps
        z = z_t
    return z


def edit(model: Any, faces: Faces, changes: Mapping[str, float], n: int = 2) -> Samples:
    """Move a face along named components, in `n` equal steps from the face as it is to the whole change.

    Args:
        faces: with one z.
        changes: `shape_K` (component K of the shape code, from 0, by so many standard deviations) or the name of an
            expression (`jawOpen`: its weight, usually in [0, 1]).
        n: faces that come out; 1 is the changed face alone.

    Raises:
        UseError: a name is not known; the message has those that are alike.
    """
    z = faces.require_z()[:1]
    names = {name: i for i, name in enumerate(model.shape_model.expression_names)}
    by_shape, by_expression = torch.zeros_like(z), z.new_zeros(1, len(names))
    shapes = {f"shape_{i}": i for i in range(model.latent.n_identity)}
    for name, amount in changes.items():
        if name in shapes:
            by_shape[0, shapes[name]] = amount
        elif name in names:
            by_expression[0, names[name]] = amount
        else:
            alike = difflib.get_close_matches(name, [*shapes, *names], 5, 0.4) or list(names)[:5]
            raise UseError(
                f"edit={{{name}: ...}} is no component of this model: it has shape_0 to shape_{len(shapes) - 1} and "
                f"{len(names)} expressions, such as {', '.join(alike)}"
            )
    share = torch.linspace(0, 1, n, device=z.device)[:, None] if n > 1 else z.new_ones(1, 1)
    embedding = None if faces.embedding is None else faces.embedding[:1].expand(n, -1)
    captions = [f"{s:.0%}" for s in share[:, 0].tolist()]
    return Samples(
        model, z + share * by_shape, embedding=embedding, expression=share * by_expression, captions=captions
    )

"""The yardstick of an autoencoder: principal components of the maps, as many as its latent has numbers.

With fewer people than texels, everything follows from inner products of people: with X the centred training maps as
rows, X X^T = U S U^T, the best k components are V = X^T U_k S_k^(-1/2), and a new map y is reconstructed as
V V^T y = X^T U_k S_k^(-1) U_k^T X y. So only the N x N and the M x N matrix of inner products is ever formed, strip by
strip of the maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitdiff.data.shards import ShardedDataset, dequantise
from fitdiff.types import FaceMaps

MOST_BYTES = 2 * 2**30
"""Of the training maps held in memory as uint8, twice that while they are read: 3,600 people at 256², 900 at 512²."""

STRIP_VALUES = 2**26
"""Numbers of a strip of all people's maps: 256 MB of float32."""


@torch.no_grad()
def pca_psnr(
    train: ShardedDataset,
    held_out: ShardedDataset,
    numbers: int,
    limit: int = 2000,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Held-out PSNR (dB, pooled) of a PCA of the map tensor.

    Args:
        train: the first `limit` people make the components, fewer where their maps would fill more than 2 GiB.
        held_out: as many of them, at most, are reconstructed.
        numbers: components; fewer where there are no more people, since N people span N - 1.
        device: where the matrices are multiplied; 2000 people at 256² are 5 TFLOP.

    Returns:
        `diffuse`, `specular`, `normals`, and `numbers`: how many components there were.
    """
    maps, truth = (_load(data, limit) for data in (train, held_out))
    strips = _strips(maps, truth)
    gram, inner = torch.zeros(len(maps), len(maps)).to(device), torch.zeros(len(truth), len(maps)).to(device)
    for strip in strips:
        x, y, _ = _centred(maps, truth, strip, device)
        gram += x @ x.T
        inner += y @ x.T
    k = min(numbers, len(maps) - 1)
    ascending, directions = torch.linalg.eigh(gram.double())
    variance = ascending.clamp_min(1e-9 * ascending[-1]).flip(-1)[:k]  # of one person there are none: the mean is left
    directions = directions.flip(-1)[:, :k]
    weights = ((inner.double() @ directions) / variance @ directions.T).float()
    errors = [_squared_errors(*_centred(maps, truth, strip, device), weights) for strip in strips]
    pooled = -10 * (torch.stack(errors).sum(0) / truth[:, :3].numel()).log10()
    return {**dict(zip(("diffuse", "specular", "normals"), pooled.tolist(), strict=True)), "numbers": k}


def _load(data: ShardedDataset, limit: int) -> Tensor:
    """(N, 9, R, R) uint8 of the first people."""
    size = data.gather([0], ("maps",))["maps"].numel()
    return data.gather(range(min(limit, len(data), max(2, MOST_BYTES // size))), ("maps",))["maps"]


def _strips(maps: Tensor, truth: Tensor) -> list[slice]:
    """Texel rows, in runs that fit in memory for all people."""
    side = maps.shape[-1]
    height = max(1, STRIP_VALUES // ((len(maps) + len(truth)) * 9 * side))
    return [slice(row, row + height) for row in range(0, side, height)]


def _centred(maps: Tensor, truth: Tensor, rows: slice, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """A strip of both, less the mean of the training maps, flat, and that mean: (N, D), (M, D), (9, h, R)."""
    x, y = (dequantise(part[:, :, rows].to(device)) for part in (maps, truth))
    mean = x.mean(0)
    return (x - mean).flatten(1), (y - mean).flatten(1), mean


def _squared_errors(x_ND: Tensor, y_MD: Tensor, mean_9hR: Tensor, weights_MN: Tensor) -> Tensor:
    """(3,) sums over people, texels and channels of the squared error of each map's displayed picture."""
    ours, theirs = (
        FaceMaps.from_tensor(part.unflatten(1, mean_9hR.shape) + mean_9hR).to_images()
        for part in (weights_MN @ x_ND, y_MD)
    )
    return torch.stack([(ours[name] - theirs[name]).square().sum() for name in theirs])

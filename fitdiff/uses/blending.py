"""Seamless joining of maps: gradient-domain blending in floating point, and how visible a seam is.

Legend of shape suffixes: C channels · R map side.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

SEAM_BAND = 3
"""Texels on both sides of a seam whose own gradients it is compared with."""


def blend(known_CRR: Tensor, generated_CRR: Tensor, mask_RR: Tensor) -> Tensor:
    """Known texels as they are, the others with the generated map's gradients. (Perez, Gangnet, Blake 2003, Eq. 8.)

    What is added to the generated map is the membrane that takes, at the known texels, the difference between the two,
    and obeys Laplace's equation elsewhere; free (Neumann) at the border of the map. So an offset between the two
    vanishes altogether, and any difference fades away from the seam.

    Args:
        known_CRR: any values where the mask is False. generated_CRR: everywhere. mask_RR: bool, True where known.

    Returns:
        (C, R, R), not clamped: equal to `known_CRR` where the mask is True.
    """
    if not mask_RR.any() or mask_RR.all():
        return torch.where(mask_RR, known_CRR, generated_CRR)
    mask = mask_RR.cpu().numpy()
    free = ~mask.ravel()
    laplacian = _laplacian(*mask.shape)[free]
    difference = (known_CRR - generated_CRR).double().cpu().numpy().reshape(len(known_CRR), -1)
    right = -(laplacian[:, ~free] @ difference[:, ~free].T)
    difference[:, free] = splu(laplacian[:, free].tocsc()).solve(right).T
    membrane = torch.from_numpy(difference).view(known_CRR.shape).to(generated_CRR)
    return torch.where(mask_RR, known_CRR, generated_CRR + membrane)


def _laplacian(rows: int, columns: int) -> sparse.csr_matrix:
    """(R R, R R) five-point graph Laplacian of the grid: the number of neighbours minus the neighbours."""
    index = np.arange(rows * columns).reshape(rows, columns)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    a, b = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    shape = (rows * columns,) * 2
    links = sparse.coo_matrix((np.ones(2 * len(a)), (np.concatenate([a, b]), np.concatenate([b, a]))), shape).tocsr()
    return (sparse.diags(np.asarray(links.sum(1)).ravel()) - links).tocsr()


def seam_ratio(values_CRR: Tensor, mask_RR: Tensor, within_RR: Tensor | None = None) -> float:
    """Mean step across the edge of a mask over the mean step beside it: 1 where no seam shows.

    A step is the absolute difference of neighbouring texels, the mean of the channels; steps along rows are compared
    with steps along rows, and those along columns likewise. Beside means within `SEAM_BAND` texels of the edge, on
    either side. NaN where the mask has no edge, or all beside it is flat.

    Args:
        within_RR: bool, only steps between two of these texels count; None is all.
    """
    within_RR = torch.ones_like(mask_RR) if within_RR is None else within_RR
    near, across, beside = _near_edge(mask_RR), values_CRR.new_zeros(()), values_CRR.new_zeros(())
    for dim in (0, 1):
        step = values_CRR.diff(dim=dim + 1).abs().mean(0)
        inside = _pairs(within_RR, dim)
        crosses = mask_RR.diff(dim=dim) & inside
        both_near = _pairs(near, dim) & inside & ~crosses
        if crosses.any():
            across += step[crosses].sum()
            beside += step[both_near].mean() * crosses.sum()
    return float(across / beside)


def _pairs(mask_RR: Tensor, dim: int) -> Tensor:
    """Of neighbours along a dimension, whether both are in a mask."""
    n = mask_RR.shape[dim] - 1
    return mask_RR.narrow(dim, 1, n) & mask_RR.narrow(dim, 0, n)


def _near_edge(mask_RR: Tensor) -> Tensor:
    """(R, R) bool, within `SEAM_BAND` texels of both sides of the edge."""
    sides = torch.stack([mask_RR, ~mask_RR])[:, None].float()
    grown = torch.nn.functional.max_pool2d(sides, 2 * SEAM_BAND + 1, 1, SEAM_BAND)[:, 0] > 0
    return grown[0] & grown[1]

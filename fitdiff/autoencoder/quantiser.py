"""Vector quantisation with a codebook that follows the latents as an exponential moving average.

Source: van den Oord et al. 2017, "Neural discrete representation learning", Eq. 3 and appendix A.1. **Chosen** instead
of VQGAN's codebook that is trained by gradients, with re-seeding of dead codes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitdiff.autoencoder.processes import n_processes, rows_of_all_processes, sum_over_processes

GOLDEN_RATIO = 2654435769
"""2^32 divided by the golden ratio: consecutive multiples modulo 2^32 spread evenly (Weyl sequence)."""


class Quantised(NamedTuple):
    """What the quantiser made of a batch.

    Attributes:
        latent: (B, D, h, w) nearest codes; the gradient passes straight through to the input.
        codes: (B, h, w) int64 in [0, K).
        commitment_loss: () beta * mean squared distance of the input to its codes; gradient to the input only.
        perplexity: () exp of the entropy of the batch's codes, in [1, K]; in training mode of all processes' batches
            together. No gradient.
    """

    latent: Tensor
    codes: Tensor
    commitment_loss: Tensor
    perplexity: Tensor


class VectorQuantiser(nn.Module):
    """Nearest-code quantiser; the codebook is learned by averages, not by gradients.

    In training mode a call of the module moves every code towards the mean of the latents assigned to it, and
    re-seeds codes that hardly any latent used with latents of the batch. Which latents is a low-discrepancy sequence
    over the batch that depends on the number of updates alone: no random generator is touched, and a resumed run
    continues bit for bit. With several processes the statistics are those of the whole batch, equal everywhere, and
    set `update_after` to the global batch size where it comes in several micro-batches: the codebook then rests until
    all of it has been seen, so that neither processes nor accumulation change what is learned.

    Attributes:
        update_after: maps, of all processes together, that an update waits for; 1 updates at every call.

    Args:
        codebook_size: K.
        dim: D, length of a code.
        decay: of the moving average, per update.
        commitment: beta of the commitment loss.
        dead_below: a code is re-seeded when its average use falls below this fraction of an equal share.
    """

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        decay: float = 0.99,
        commitment: float = 0.25,
        dead_below: float = 0.03,
    ):
        super().__init__()
        self.decay, self.commitment, self.dead_below = decay, commitment, dead_below
        self.update_after = 1
        self._waiting: list[Tensor] = []
        self.register_buffer("codebook", torch.randn(codebook_size, dim))
        # No use so far: the first update re-seeds nearly every code, which starts the codebook from data.
        self.register_buffer("use", torch.zeros(codebook_size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, latent_BDhw: Tensor) -> Quantised:
        """Quantise a batch and, in training mode, update the codebook afterwards (see `update_after`).

        Args:
            latent_BDhw: (B, D, h, w) float.
        """
        vectors_ND = latent_BDhw.movedim(1, -1).flatten(0, -2).to(self.codebook.dtype)
        codes_N = self.nearest(vectors_ND)
        quantised = self._unflatten(self.codebook[codes_N], latent_BDhw)
        count = self._count(codes_N)
        if self.training:
            count = sum_over_processes(count)
            self._collect(vectors_ND.detach(), len(latent_BDhw))
        return Quantised(
            latent=latent_BDhw + (quantised - latent_BDhw).detach(),
            codes=codes_N.view(latent_BDhw[:, 0].shape),
            commitment_loss=self.commitment * (latent_BDhw - quantised).square().mean(),
            perplexity=torch.special.entr(count / count.sum()).sum().exp(),
        )

    def quantise(self, latent_BDhw: Tensor) -> Tensor:
        """Replace each latent by its nearest code; the gradient passes straight through. Never updates the codebook.

        Args:
            latent_BDhw: (B, D, h, w) float.
        """
        vectors_ND = latent_BDhw.movedim(1, -1).flatten(0, -2).to(self.codebook.dtype)
        quantised = self._unflatten(self.codebook[self.nearest(vectors_ND)], latent_BDhw)
        return latent_BDhw + (quantised - latent_BDhw).detach()

    @torch.no_grad()
    def nearest(self, vectors_ND: Tensor) -> Tensor:
        """Index of the nearest code of each vector: (N, D) -> (N,) int64.

        Codes of length 1 are sorted and searched: log K steps per vector instead of K distances.
        """
        if self.codebook.shape[1] > 1:
            return torch.cdist(vectors_ND, self.codebook).argmin(1)
        values, order = self.codebook[:, 0].sort()
        return order[torch.bucketize(vectors_ND[:, 0].contiguous(), (values[1:] + values[:-1]) / 2)]

    @property
    def usage(self) -> Tensor:
        """() fraction of codes whose average use is at least a tenth of an equal share."""
        return (self.use > 0.1 * self.use.mean()).to(self.use.dtype).mean()

    @torch.compiler.disable
    def _collect(self, vectors_ND: Tensor, n_maps: int) -> None:
        """Update the codebook if the batch is whole with these latents of `n_maps` maps; else keep them for then."""
        self._waiting.append(vectors_ND)
        if len(self._waiting) * n_maps * n_processes() >= self.update_after:
            # A process's micro-batches are consecutive rows of the global batch, so this is the global batch in order.
            self._update(rows_of_all_processes(torch.cat(self._waiting)))
            self._waiting.clear()

    @torch.no_grad()
    def _update(self, vectors_ND: Tensor) -> None:
        """Move the codebook to the running mean of its latents, then re-seed dead codes."""
        codes_N = self.nearest(vectors_ND)
        count = self._count(codes_N)
        sums = torch.zeros_like(self.codebook).index_add_(0, codes_N, vectors_ND)
        self.use.lerp_(count, 1 - self.decay)
        # m / n with m <- decay m + (1 - decay) sums, n <- decay n + (1 - decay) count, written without storing m.
        rate = (1 - self.decay) / self.use.clamp_min(torch.finfo(self.use.dtype).tiny)
        self.codebook.add_(rate[:, None] * (sums - count[:, None] * self.codebook))
        share = len(vectors_ND) / len(self.codebook)
        dead = self.use < self.dead_below * share
        # A latent seeds one code: copies would share its latents until the moving average found them dead again.
        number = dead.cumsum(0) - 1
        seeded = dead & (number < len(vectors_ND))
        seeds = vectors_ND[self._order(vectors_ND)[number.clamp(0, len(vectors_ND) - 1)]]
        self.codebook.copy_(torch.where(seeded[:, None], seeds, self.codebook))
        self.use.masked_fill_(seeded, share)
        self.updates += 1

    def _order(self, vectors_ND: Tensor) -> Tensor:
        """(N,) the batch's latents in an order whose beginnings spread evenly over it, another one at every update."""
        index = torch.arange(len(vectors_ND), device=vectors_ND.device) + self.updates * len(vectors_ND)
        return ((index * GOLDEN_RATIO) % 2**32).argsort()

    def _count(self, codes_N: Tensor) -> Tensor:
        ones = torch.ones_like(codes_N, dtype=self.use.dtype)
        return torch.zeros_like(self.use).index_add_(0, codes_N, ones)

    @staticmethod
    def _unflatten(vectors_ND: Tensor, like_BDhw: Tensor) -> Tensor:
        return vectors_ND.view(*like_BDhw.movedim(1, -1).shape).movedim(-1, 1).to(like_BDhw.dtype)

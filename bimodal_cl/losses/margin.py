"""The primitive of every loss here: the margin of an anchor over its negatives, and its gradient.

With ``s_ij`` the cosine of anchor ``i`` and candidate ``j``, ``tau_i`` the anchor's temperature, ``N_i`` its negatives:

    d_ij = (s_ij - s_ii) / tau_i
    z_i  = logsumexp_{j in N_i} d_ij                       margin: log-odds of losing against the negatives
    e_i  = sum_{j in N_i} softmax_j(d_ij) * d_ij           slope of the margin: dz_i/dtau_i = -e_i / tau_i

Images are the anchors of one direction and texts those of the other; both read the same similarities, one along the
rows and one along the columns, so one product serves both.

**Gradient.** Let ``c_i = dL/dz_i`` for image anchor ``i``, ``c'_j`` the same for text anchor ``j``,
``P_ij = exp(d_ij - z_i)`` and ``Q_ij = exp(d'_ij - z'_j)`` the softmax weights of the two directions. Then

    G_ij   = c_i P_ij / tau_i + c'_j Q_ij / tau'_j         = dL/ds_ij for negatives
    dL/dx_i = sum_j G_ij y_j - (c_i/tau_i + c'_i/tau'_i) y_i
    dL/dy_j = sum_i G_ij x_i - (c_j/tau_j + c'_j/tau'_j) x_j

**Memory.** ``z``, ``e`` and the gradients are sums over candidates. The forward pass keeps a running maximum and
running sums per row and per column of one tile; the backward pass computes the tile again:
``O(batch * dim + tile_size ** 2)``.

**Ranks.** ``x``, ``y``, temperatures and, in the backward pass, ``c`` are gathered once (without gradient). Each rank
then sees its own images against all texts and all images against its own texts, which is everything that the gradient
of its own features needs: nothing is reduced or scattered. The gradient returned on a rank is that of the sum of all
ranks' losses, so data-parallel averaging of parameter gradients gives the gradient of the mean of the ranks' losses.

Sources: RGCL (Qiu et al., ICML 2023) defines its objective over the negatives without the positive, as here; the idea
of tiling is Inf-CL's (arXiv 2410.17243).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from bimodal_cl.distributed import gather_rows, rank, reduce_max, reduce_sum

# Stands for the logit of a pair that is no negative: finite, so that 0 * MASKED is 0 and not NaN.
MASKED = -1e30


class Margins(NamedTuple):
    """One direction's margins of this process's anchors.

    Attributes:
        margin: ``z_i``, differentiable in the features and temperatures; 0 where there are no negatives.
        tau_slope: ``e_i``, without gradient; 0 where there are no negatives.
        num_negatives: ``n_i`` as a float.
    """

    margin: Float[Tensor, "anchors 1"]
    tau_slope: Float[Tensor, "anchors 1"]
    num_negatives: Float[Tensor, "anchors 1"]

    @property
    def log_mean_odds(self) -> Float[Tensor, "anchors 1"]:
        """``log g_i = z_i - log n_i``, without gradient."""
        return self.margin.detach() - self.num_negatives.clamp(min=1).log()


def contrastive_margins(
    image_features: Float[Tensor, "batch dim"],
    text_features: Float[Tensor, "batch dim"],
    image_ids: Int[Tensor, " batch"],
    text_ids: Int[Tensor, " batch"],
    tau_image: Float[Tensor, "batch 1"],
    tau_text: Float[Tensor, "batch 1"],
    *,
    tile_size: int | None = None,
    mask_repeats: bool = True,
) -> tuple[Margins, Margins]:
    """Compute the margins of this process's images (over all texts) and of its texts (over all images).

    Args:
        image_features: unit-norm; row ``i`` and row ``i`` of ``text_features`` are a positive pair.
        text_features: unit-norm, as many rows as ``image_features`` and, with several ranks, as every other rank.
        image_ids: pairs of equal image id are not negatives of each other.
        text_ids: pairs of equal text id are not negatives of each other.
        tau_image: temperatures of the image anchors, > 0; differentiable.
        tau_text: temperatures of the text anchors, > 0; differentiable.
        tile_size: rows and columns of similarities held at a time; None holds all of them.
        mask_repeats: False makes every pair but the positive a negative, whatever the ids.

    Returns:
        The images' margins and the texts' margins.
    """
    negatives = Negatives.gather(image_ids, text_ids, mask_repeats)
    return compute_margins(image_features, text_features, tau_image, tau_text, negatives, tile_size)


def compute_margins(
    image_features: Float[Tensor, "batch dim"],
    text_features: Float[Tensor, "batch dim"],
    tau_image: Float[Tensor, "batch 1"],
    tau_text: Float[Tensor, "batch 1"],
    negatives: Negatives,
    tile_size: int | None,
) -> tuple[Margins, Margins]:
    """Compute the margins as :func:`contrastive_margins` does, where the negatives are known already."""
    margin_image, margin_text, slope_image, slope_text = _MarginFunction.apply(
        image_features, text_features, tau_image, tau_text, negatives, tile_size
    )
    own = negatives.of_own_anchors.to(image_features.dtype)
    return Margins(margin_image, slope_image, own), Margins(margin_text, slope_text, own)


class Negatives(NamedTuple):
    """Who is whose negative in the global batch; the relation is symmetric, so both directions share it.

    Attributes:
        image_group: equal numbers stand for equal image ids.
        text_group: equal numbers stand for equal text ids.
        num_negatives: ``n_i`` of every pair of the global batch.
        any_repeats: whether any id occurs twice; otherwise only the positives are no negatives.
        own: this process's rows of the global batch.
    """

    image_group: Int[Tensor, " candidates"]
    text_group: Int[Tensor, " candidates"]
    num_negatives: Int[Tensor, "candidates 1"]
    any_repeats: bool
    own: slice

    @classmethod
    def gather(cls, image_ids: Tensor, text_ids: Tensor, mask_repeats: bool) -> Negatives:
        """Find the negatives in the global batch from this process's ids; without ``mask_repeats``, all but itself."""
        batch_size = image_ids.shape[0]
        own = slice(rank() * batch_size, (rank() + 1) * batch_size)
        ids = gather_rows(torch.stack([image_ids, text_ids], dim=1))
        num_pairs = ids.shape[0]
        if not mask_repeats:
            everyone = torch.arange(num_pairs, device=ids.device)
            return cls(everyone, everyone, torch.full_like(everyone, num_pairs - 1)[:, None], False, own)
        _, image_group, image_count = ids[:, 0].unique(return_inverse=True, return_counts=True)
        _, text_group, text_count = ids[:, 1].unique(return_inverse=True, return_counts=True)
        both = image_group * num_pairs + text_group
        _, both_group, both_count = both.unique(return_inverse=True, return_counts=True)
        excluded = image_count[image_group] + text_count[text_group] - both_count[both_group]
        any_repeats = min(image_count.numel(), text_count.numel()) < num_pairs
        return cls(image_group, text_group, (num_pairs - excluded)[:, None], any_repeats, own)

    @property
    def of_own_anchors(self) -> Int[Tensor, "anchors 1"]:
        """``n_i`` of this process's pairs."""
        return self.num_negatives[self.own]

    def mask_(self, logits: Tensor, rows: slice, columns: slice) -> None:
        """Set the logits of pairs that are not negatives to ``MASKED``, in place."""
        if self.any_repeats:
            repeated = self.image_group[rows, None] == self.image_group[None, columns]
            repeated |= self.text_group[rows, None] == self.text_group[None, columns]
            logits.masked_fill_(repeated, MASKED)
        else:  # only the positives: the part of the diagonal that runs through this tile
            first, last = max(rows.start, columns.start), min(rows.stop, columns.stop)
            if first < last:
                tile = logits[first - rows.start : last - rows.start, first - columns.start : last - columns.start]
                tile.fill_diagonal_(MASKED)


class _RunningSums:
    """Running ``max d``, ``sum exp(d - max)`` and ``sum exp(d - max) d`` over the negatives of many anchors."""

    def __init__(self, like: Tensor) -> None:
        self.peak = torch.full_like(like, MASKED)
        self.total = torch.zeros_like(like)
        self.weighted = torch.zeros_like(like)

    def add(self, anchors: slice, logits: Tensor, dim: int) -> None:
        """Add a tile whose candidates lie along ``dim``. Overwrites ``logits``."""
        keep = (-1, 1)
        peak = torch.maximum(self.peak[anchors], logits.amax(dim).view(keep))
        shrink = torch.exp(self.peak[anchors] - peak)
        along = peak if dim == 1 else peak.T
        weights = torch.exp(logits - along)
        self.total[anchors] = self.total[anchors] * shrink + weights.sum(dim).view(keep)
        self.weighted[anchors] = self.weighted[anchors] * shrink + weights.mul_(logits).sum(dim).view(keep)
        self.peak[anchors] = peak

    def reduce(self) -> None:
        """Combine the ranks' sums over different candidates of the same anchors; equal on all ranks afterwards."""
        peak = reduce_max(self.peak)
        shrink = torch.exp(self.peak - peak)
        sums = reduce_sum(torch.cat([self.total * shrink, self.weighted * shrink], dim=1))
        self.peak, self.total, self.weighted = peak, sums[:, :1], sums[:, 1:]

    def margin_and_slope(self, num_negatives: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` and ``e``; both 0 for anchors without negatives."""
        alone = num_negatives == 0
        total = self.total.masked_fill(alone, 1)
        margin = (self.peak + total.log()).masked_fill(alone, 0)
        return margin, (self.weighted / total).masked_fill(alone, 0)


def compute_softplus(margin: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
    """``log(1 + exp(z))`` to full precision; PyTorch's own ``softplus`` is cut to ``z`` above 20."""
    return -torch.nn.functional.logsigmoid(-margin)


def _tiles(whole: slice, tile_size: int | None) -> Iterator[slice]:
    step = tile_size or max(whole.stop - whole.start, 1)
    for start in range(whole.start, whole.stop, step):
        yield slice(start, min(start + step, whole.stop))


class _MarginFunction(torch.autograd.Function):
    """Margins of both directions by tiles; the module's docstring derives the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        image_features: Tensor,
        text_features: Tensor,
        tau_image: Tensor,
        tau_text: Tensor,
        negatives: Negatives,
        tile_size: int | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images, texts = gather_rows(image_features), gather_rows(text_features)
        tau_images, tau_texts = gather_rows(tau_image), gather_rows(tau_text)
        positives = (images * texts).sum(dim=1, keepdim=True)
        image_sums, text_sums = _RunningSums(tau_images), _RunningSums(tau_texts)
        for rows in _tiles(negatives.own, tile_size):
            for columns in _tiles(slice(0, len(texts)), tile_size):
                sims = images[rows] @ texts[columns].T
                negatives.mask_(sims, rows, columns)
                image_sums.add(rows, (sims - positives[rows]) / tau_images[rows], dim=1)
                text_sums.add(columns, sims.sub_(positives[columns].T).div_(tau_texts[columns].T), dim=0)
        text_sums.reduce()  # each rank has seen its own images only
        text_margin, text_slope = text_sums.margin_and_slope(negatives.num_negatives)
        image_margin, image_slope = image_sums.margin_and_slope(negatives.num_negatives)
        ctx.negatives, ctx.tile_size = negatives, tile_size
        own = negatives.own
        ctx.save_for_backward(
            images, texts, tau_images, tau_texts, positives, image_margin[own], text_margin, image_slope, text_slope
        )
        outputs = image_margin[own], text_margin[own], image_slope[own], text_slope[own]
        ctx.mark_non_differentiable(*outputs[2:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c_image: Tensor, c_text: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        images, texts, tau_images, tau_texts, positives, own_margin, text_margin, *slopes = ctx.saved_tensors
        negatives, own = ctx.negatives, ctx.negatives.own
        everyone = slice(0, len(images))
        alone = negatives.num_negatives == 0
        scale_image = (gather_rows(c_image) / tau_images).masked_fill_(alone, 0)
        scale_text = (gather_rows(c_text) / tau_texts).masked_fill_(alone, 0)
        image_margin = gather_rows(own_margin)

        def weights(rows: slice, columns: slice) -> Tensor:
            """``G`` of one tile."""
            sims = images[rows] @ texts[columns].T
            negatives.mask_(sims, rows, columns)
            result = (
                ((sims - positives[rows]) / tau_images[rows]).sub_(image_margin[rows]).exp_().mul_(scale_image[rows])
            )
            sims.sub_(positives[columns].T).div_(tau_texts[columns].T).sub_(text_margin[columns].T).exp_()
            return result.addcmul_(sims, scale_text[columns].T)

        both = scale_image[own] + scale_text[own]
        image_gradient, text_gradient = -both * texts[own], -both * images[own]
        one_process = own == everyone
        for rows in _tiles(own, ctx.tile_size):
            for columns in _tiles(everyone, ctx.tile_size):
                tile = weights(rows, columns)
                image_gradient[rows.start - own.start : rows.stop - own.start] += tile @ texts[columns]
                if one_process:  # the same tile holds all images against our own texts
                    text_gradient[columns] += tile.T @ images[rows]
        if not one_process:
            for rows in _tiles(everyone, ctx.tile_size):
                for columns in _tiles(own, ctx.tile_size):
                    text_gradient[columns.start - own.start : columns.stop - own.start] += (
                        weights(rows, columns).T @ images[rows]
                    )
        slope_image, slope_text = slopes
        tau_image_gradient = -scale_image[own] * slope_image[own]
        tau_text_gradient = -scale_text[own] * slope_text[own]
        return image_gradient, text_gradient, tau_image_gradient, tau_text_gradient, None, None

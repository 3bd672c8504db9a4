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
``O(batch * dim + tile_size ** 2)``. With ``l_i = s_ii + tau_i z_i``, the smooth maximum of the negatives'
similarities, ``P_ij = exp((s_ij - l_i) / tau_i)``, so tiles need to know no positives.

**Ranks.** One all-gather brings all ranks' features and temperatures together. A rank then sees its own images against
all texts, which completes ``z`` and ``e`` of its images; what it has summed for other ranks' texts goes to them (one
all-to-all). In the backward pass one all-gather brings ``c`` and ``l`` of all anchors, and a rank computes its own
images against all texts and all images against its own texts, which is everything that the gradient of its own
features needs: no gradient passes through a collective, nothing is reduced or scattered. The gradient returned on a
rank is that of the sum of all ranks' losses, so data-parallel averaging of parameter gradients gives the gradient of
the mean of the ranks' losses.

Sources: RGCL (Qiu et al., ICML 2023) defines its objective over the negatives without the positive, as here; the idea
of tiling is Inf-CL's (arXiv 2410.17243).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from bimodal_cl.distributed import exchange_rows, gather_rows, world_size
from bimodal_cl.losses.margin.kernels import Kernel, choose_kernel
from bimodal_cl.losses.margin.negatives import Negatives
from bimodal_cl.losses.margin.products import Products, product_dtype
from bimodal_cl.losses.margin.sums import GlobalBatch, Pulls, RunningSums, Sums
from bimodal_cl.losses.margin.tiles import TileSize, choose_tiling


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

    @property
    def kl(self) -> Float[Tensor, "anchors 1"]:
        """KL divergence of the softmax weights from uniform ones, ``e_i - log g_i``, from 0 to ``log n_i``, in nats.

        It is what the robust losses hold against their radius ``rho``: the temperature is at rest where the two agree.
        """
        return self.tau_slope - self.log_mean_odds


def contrastive_margins(
    image_features: Float[Tensor, "batch dim"],
    text_features: Float[Tensor, "batch dim"],
    image_ids: Int[Tensor, " batch"],
    text_ids: Int[Tensor, " batch"],
    tau_image: Float[Tensor, "batch 1"],
    tau_text: Float[Tensor, "batch 1"],
    *,
    tile_size: TileSize = "auto",
    mask_repeats: bool = True,
    products: Products = "float32",
    kernel: Kernel = "auto",
) -> tuple[Margins, Margins]:
    """Compute the margins of this process's images (over all texts) and of its texts (over all images).

    Args:
        image_features: unit-norm; row ``i`` and row ``i`` of ``text_features`` are a positive pair. float32 or float64.
        text_features: unit-norm, as many rows as ``image_features`` and, with several ranks, as every other rank.
        image_ids: pairs of equal image id are not negatives of each other.
        text_ids: pairs of equal text id are not negatives of each other.
        tau_image: temperatures of the image anchors, > 0; differentiable.
        tau_text: temperatures of the text anchors, > 0; differentiable.
        tile_size: rows and columns of similarities held at a time; None holds all of them; ``"auto"`` chooses from the
            batch and the free memory (see :func:`~bimodal_cl.losses.margin.tiles.choose_tiling`).
        mask_repeats: False makes every pair but the positive a negative, whatever the ids.
        products: ``"bf16"`` rounds the factors of the matrix products to bf16; sums, statistics and gradients stay
            float32 (see :mod:`~bimodal_cl.losses.margin.products` for the accuracy). float64 features stay float64.
        kernel: ``"triton"``, ``"torch"``, or ``"auto"``: see :func:`~bimodal_cl.losses.margin.kernels.choose_kernel`.

    Returns:
        The images' margins and the texts' margins.
    """
    negatives = Negatives.gather(image_ids, text_ids, mask_repeats)
    return compute_margins(
        image_features, text_features, tau_image, tau_text, negatives, tile_size, products=products, kernel=kernel
    )


def compute_margins(
    image_features: Float[Tensor, "batch dim"],
    text_features: Float[Tensor, "batch dim"],
    tau_image: Float[Tensor, "batch 1"],
    tau_text: Float[Tensor, "batch 1"],
    negatives: Negatives,
    tile_size: TileSize,
    *,
    products: Products = "float32",
    kernel: Kernel = "auto",
) -> tuple[Margins, Margins]:
    """Compute the margins as :func:`contrastive_margins` does, where the negatives are known already."""
    how = Computation(tile_size, products, kernel)
    tau_image, tau_text = tau_image.to(image_features.dtype), tau_text.to(image_features.dtype)
    with torch.autocast(image_features.device.type, enabled=False):
        margin_image, margin_text, slope_image, slope_text = _MarginFunction.apply(
            image_features, text_features, tau_image, tau_text, negatives, how
        )
    own = negatives.of_own_anchors.to(image_features.dtype)
    return Margins(margin_image, slope_image, own), Margins(margin_text, slope_text, own)


class Computation(NamedTuple):
    """How margins are computed, which changes no result beyond rounding; see :func:`contrastive_margins`."""

    tile_size: TileSize
    products: Products
    kernel: Kernel


def compute_softplus(margin: Float[Tensor, "anchors 1"]) -> Float[Tensor, "anchors 1"]:
    """``log(1 + exp(z))`` to full precision; PyTorch's own ``softplus`` is cut to ``z`` above 20."""
    return -torch.nn.functional.logsigmoid(-margin)


def compute_alignment(
    image_features: Float[Tensor, "batch dim"], text_features: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch 1"]:
    """``s_ii``, without gradient; piece by piece, so that no temporary is as large as the features."""
    pieces = zip(image_features.detach().split(1024), text_features.detach().split(1024), strict=True)
    return torch.cat([(images * texts).sum(dim=1, keepdim=True) for images, texts in pieces])


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
        how: Computation,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = negatives.own
        alone = negatives.of_own_anchors == 0
        positives = compute_alignment(image_features, text_features)
        batch = _gather_batch(image_features, text_features, tau_image, tau_text, negatives, how.products)
        tiling = choose_tiling(how.tile_size, len(positives), len(batch.images), tau_image)
        kernel = choose_kernel(how.kernel, batch)
        image_sums, text_sums, kept = kernel.sum_tiles(batch, tiling)
        level_image, mean_image = image_sums.level_and_mean(own, alone)
        level_text, mean_text = _join_text_sums(text_sums, tau_text).level_and_mean(slice(None), alone)
        margin_image, slope_image = (_scale(value, positives, tau_image, alone) for value in (level_image, mean_image))
        margin_text, slope_text = (_scale(value, positives, tau_text, alone) for value in (level_text, mean_text))
        ctx.negatives, ctx.tiling, ctx.kernel = negatives, tiling, kernel
        levels = torch.cat([level_image, level_text], dim=1)
        operands = batch.images, batch.texts, batch.tau_images, batch.tau_texts
        ctx.save_for_backward(image_features, text_features, *operands, levels, slope_image, slope_text, *kept)
        ctx.mark_non_differentiable(slope_image, slope_text)
        return margin_image, margin_text, slope_image, slope_text

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c_image: Tensor, c_text: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        image_features, text_features, images, texts, tau_images, tau_texts, levels, *slopes_and_kept = (
            ctx.saved_tensors
        )
        slope_image, slope_text, *kept = slopes_and_kept
        negatives, tiling = ctx.negatives, ctx.tiling
        batch = GlobalBatch(images, texts, tau_images, tau_texts, negatives)
        own, everyone = negatives.own, negatives.all_rows
        alone = negatives.num_negatives == 0
        columns = gather_rows(torch.cat([c_image, c_text, levels], dim=1)).T[:, :, None].contiguous()
        of_images, of_texts = (
            Pulls(tau, level, (c / tau).masked_fill_(alone, 0))
            for tau, c, level in zip((batch.tau_images, batch.tau_texts), columns[:2], columns[2:], strict=True)
        )
        scale_image, scale_text = of_images.scale[own], of_texts.scale[own]
        attraction = -(scale_image + scale_text)
        image_gradient, text_gradient = attraction * text_features, attraction * image_features
        add_gradients_ = ctx.kernel.add_gradients_
        with torch.autocast(image_features.device.type, enabled=False):
            if world_size() == 1:  # the same tiles hold all images against our own texts
                add_gradients_(batch, of_images, of_texts, own, own, tiling, image_gradient, text_gradient, kept)
            else:
                add_gradients_(batch, of_images, of_texts, own, everyone, tiling, image_gradient, None, kept)
                add_gradients_(batch, of_images, of_texts, everyone, own, tiling, None, text_gradient)
        return image_gradient, text_gradient, -scale_image * slope_image, -scale_text * slope_text, None, None


def _gather_batch(
    image_features: Tensor,
    text_features: Tensor,
    tau_image: Tensor,
    tau_text: Tensor,
    negatives: Negatives,
    products: Products,
) -> GlobalBatch:
    """Bring all ranks' features, in the type of the products, and temperatures together in one collective.

    The temperatures travel behind the features, bit for bit, in four columns that keep the rows aligned.
    """
    dtype = product_dtype(products, image_features)
    images, texts = image_features.detach().to(dtype), text_features.detach().to(dtype)
    taus = torch.cat([tau_image, tau_text], dim=1).detach()
    if world_size() > 1:
        dim = images.shape[1]
        rows = gather_rows(torch.cat([images, texts, pad(taus, (0, 2)).view(dtype)], dim=1))
        images, texts = rows[:, :dim], rows[:, dim : 2 * dim]
        taus = rows[:, 2 * dim :].contiguous().view(taus.dtype)
    return GlobalBatch(images, texts, taus[:, :1].contiguous(), taus[:, 1:2].contiguous(), negatives)


def _scale(value: Tensor, positives: Tensor, tau: Tensor, alone: Tensor) -> Tensor:
    """``(value - s_ii) / tau_i``; 0 for anchors without negatives."""
    return ((value - positives) / tau).masked_fill_(alone, 0)


def _join_text_sums(partial: RunningSums, tau: Tensor) -> RunningSums:
    """Send each rank the sums for its texts over our images, and join what all ranks have summed for ours."""
    if world_size() == 1:
        return partial
    batch_size = [len(tau)] * world_size()
    joined = RunningSums(tau)
    for part in exchange_rows(torch.cat(partial.sums, dim=1), batch_size, batch_size).split(len(tau)):
        joined.add_(slice(None), Sums(*part.split(1, dim=1)))
    return joined

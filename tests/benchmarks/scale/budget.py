"""Compute what a training step sends and what it keeps, from the sizes of a run.

With ``B`` the pairs of a step, ``W`` the ranks, ``D`` the width of the features, ``P`` the trained parameters, ``N``
the images or texts of the data set. A test compares every transfer with those of steps on two and four gloo processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from bimodal_cl.losses import build_loss

FLOAT32, INT64 = 4, 8
FACTS = 11  # numbers that each rank tells the others about its batch (losses/module/batch_checks.py)
METRICS = 5  # the loss and the four values that every loss logs

Kind = Literal["all_gather", "all_to_all", "all_reduce", "reduce_scatter", "broadcast"]


@dataclass(frozen=True)
class Transfer:
    """A collective of a step.

    Args:
        what: what is sent.
        kind: the collective.
        size: bytes of its result on a rank (all-gather, all-to-all), or of what a rank brings (the others).
        times: how often in a step.
    """

    what: str
    kind: Kind
    size: float
    times: int = 1

    def received(self, ranks: int) -> float:
        """Bytes that a rank gets from others in a step: with rings, which send every number over each link once."""
        share = (ranks - 1) / ranks
        return self.times * self.size * {"all_reduce": 2 * share, "broadcast": 1}.get(self.kind, share)


# By name of the loss: exchanges of one number per anchor and modality with replicated and with sharded tables (the
# means and look-ups of the rules), and numbers that it reduces for all anchors at once, in all.
EXCHANGES: dict[str, tuple[int, int]] = {"sogclr": (1, 2), "isogclr": (2, 4), "rgcl_g": (1, 2), "macl-anchor": (2, 3)}
SCALARS = {"clip": 2, "cyclip": 2, "siglip": 2, "rgcl_g": 2, "macl": 2}
# Values that a loss logs beside those of every loss, in all: KL (losses on margins), and the log of the moving average.
LOGGED = {"siglip": 0, "sogclr": 4, "isogclr": 4, "rgcl_g": 4}


@dataclass(frozen=True)
class Run:
    """The sizes of a run.

    Args:
        loss: its name; ``macl-anchor`` is ``macl`` with ``alignment: anchor``.
        ranks: W.
        batch: B, over all ranks and micro-batches.
        dim: D.
        parameters: P, of both towers.
        images, texts: N of both modalities.
        sharded_tables: ``loss.tables: sharded``.
        table_on_cpu: ``loss.table_device: cpu``.
        bf16_products: ``loss.products: bf16``.
        fsdp: whether weights, gradients and moments are sharded (FSDP2).
        bf16: ``train.precision: bf16``; with FSDP, weights travel in bf16.
        reshard: FSDP2's ``fsdp_reshard_after_forward``; without it, one micro-batch only.
        micro_batches: ``train.accumulate_features``.
        buffers: bytes of running statistics and other buffers of the towers, which DDP sends before a forward pass.
    """

    loss: str
    ranks: int
    batch: int
    dim: int
    parameters: int
    images: int
    texts: int
    sharded_tables: bool = False
    table_on_cpu: bool = False
    bf16_products: bool = False
    fsdp: bool = False
    bf16: bool = False
    reshard: bool = True
    micro_batches: int = 1
    buffers: int = 0

    @property
    def columns(self) -> int:
        """Numbers kept for each image and for each text."""
        name, _, kind = self.loss.partition("-")
        options = {"alignment": kind} if kind else {}
        loss = build_loss(name, num_images=1, num_texts=1, **options)
        return 0 if loss.image_anchors is None else len(loss.image_anchors.columns)


def list_loss_transfers(run: Run) -> list[Transfer]:
    """What the loss sends in a step, forward and backward."""
    ranks, batch, dim = run.ranks, run.batch, run.dim
    transfers = [
        Transfer("facts about each rank's batch", "all_gather", FACTS * INT64 * ranks),
        Transfer("ids of images and texts", "all_gather", 2 * INT64 * batch),
        Transfer("loss and logged means", "all_reduce", (METRICS + LOGGED.get(run.loss, 2)) * FLOAT32),
    ]
    if run.loss == "siglip":
        transfers += [
            Transfer("features", "all_gather", dim * FLOAT32 * batch, times=2),
            Transfer("weights of the anchors", "all_gather", FLOAT32 * batch),
        ]
    else:
        width = 2 if run.bf16_products else FLOAT32
        transfers += [
            Transfer("features and temperatures", "all_gather", (2 * dim * width + 4 * FLOAT32) * batch),
            Transfer("partial sums of the texts", "all_to_all", 3 * FLOAT32 * batch),
            Transfer("weights and levels of the anchors", "all_gather", 4 * FLOAT32 * batch),
        ]
    if run.loss == "cyclip":
        transfers.append(Transfer("products of features", "all_reduce", 3 * dim**2 * FLOAT32))
    if run.loss in SCALARS:
        what = "gradient of the temperature, or mean alignment"
        transfers.append(Transfer(what, "all_reduce", FLOAT32, times=SCALARS[run.loss]))
    if run.loss in EXCHANGES:
        transfers.append(Transfer("ids and whether they take part", "all_gather", 2 * INT64 * batch, times=2))
        replicated, sharded = EXCHANGES[run.loss]
        if run.sharded_tables:
            transfers.append(Transfer("rows of the tables", "all_to_all", FLOAT32 * batch / ranks, times=2 * sharded))
        else:
            transfers.append(Transfer("values by anchor", "all_gather", FLOAT32 * batch, times=2 * replicated))
    return transfers


def list_weight_transfers(run: Run) -> list[Transfer]:
    """What the towers send in a step: gradients (DDP), or weights and gradients (FSDP2)."""
    if not run.fsdp:
        buffers = [Transfer("buffers", "broadcast", run.buffers)] if run.buffers else []
        return [Transfer("gradients", "all_reduce", FLOAT32 * run.parameters), *buffers]
    width = 2 if run.bf16 else FLOAT32
    # Forward and backward; with micro-batches a forward pass without graph comes first.
    assert run.reshard or run.micro_batches == 1
    passes = (2 if run.reshard else 1) if run.micro_batches == 1 else 3 * run.micro_batches
    return [
        Transfer("weights", "all_gather", width * run.parameters, times=passes),
        Transfer("gradients", "reduce_scatter", FLOAT32 * run.parameters, times=run.micro_batches),
    ]


def list_signal_transfers(run: Run) -> list[Transfer]:
    """What the ranks send in a step to agree on whether to stop."""
    return [Transfer("the signal that asks to stop", "all_reduce", INT64)]


def table_bytes(run: Run) -> int:
    """Bytes of both tables that a rank keeps."""
    shards = run.ranks if run.sharded_tables else 1
    return run.columns * FLOAT32 * (math.ceil(run.images / shards) + math.ceil(run.texts / shards))


def weight_bytes(run: Run) -> float:
    """Bytes of weights, gradients and AdamW's two moments that a rank keeps between steps and at its end."""
    return 4 * FLOAT32 * run.parameters / (run.ranks if run.fsdp else 1)


def feature_bytes(run: Run) -> float:
    """Bytes of features that a rank keeps for the loss's backward pass: its own, their gradients, the gathered ones."""
    width = 2 if run.bf16_products else FLOAT32
    own = 2 * run.dim * FLOAT32 * run.batch / run.ranks
    return 2 * own + (2 * run.dim * width + 4 * FLOAT32) * run.batch


def place_tables(run: Run, memory: float, share: float = 0.05) -> Run:
    """Choose where tables go: replicated while they take a small share of a device, then sharded, then on the CPU.

    Args:
        run: the run.
        memory: bytes of a device.
        share: of it that tables may take.
    """
    for choice in (run, replace(run, sharded_tables=True)):
        if table_bytes(choice) <= share * memory:
            return choice
    return replace(run, sharded_tables=True, table_on_cpu=True)

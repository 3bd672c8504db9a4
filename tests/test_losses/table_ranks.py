"""What gloo processes do to show that sharded and replicated tables are one: train, save, load on fewer, refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss
from bimodal_cl.losses.module.registry import LOSS_SETTINGS
from bimodal_cl.losses.tables import anchors as anchors_module
from bimodal_cl.losses.tables.anchors import AnchorTable, gather_state
from bimodal_cl.losses.tables.occurrences import Occurrences
from tests.test_losses.linear_towers import CASES, DIM, NUM_IMAGES, NUM_STEPS, NUM_TEXTS, global_batch, join, train

KINDS: dict[str, dict[str, Any]] = {
    "replicated": {},
    "sharded": {"tables": "sharded"},
    "sharded-cpu": {"tables": "sharded", "table_device": "cpu"},
}
MORE_STEPS = range(NUM_STEPS, NUM_STEPS + 2)
SAVED_ON = 4


def has_tables(case: str) -> bool:
    """Whether the case's loss remembers anything for each image and text."""
    name, hyper = CASES[case]
    loss = build_loss(name, num_images=3, num_texts=3, **hyper)
    return any(isinstance(part, AnchorTable) for part in loss.modules())


def may_have_tables(name: str) -> bool:
    """Whether the loss takes the argument."""
    return "tables" in LOSS_SETTINGS[name].model_fields


TABLE_CASES = [case for case in CASES if has_tables(case) and not case.endswith("-tiled")]  # tiles touch no table


def measure(rank: int) -> dict[str, Any]:
    """Bytes, rows and whole columns of a sharded loss after a step, and who holds the state that is gathered."""
    loss = build_loss("isogclr", num_images=NUM_IMAGES, num_texts=NUM_TEXTS, rho=1.0, tables="sharded")
    images, texts, image_ids, text_ids = (part[16 * rank : 16 * rank + 16] for part in global_batch(0))
    loss(normalize(images[:, :DIM].float()), normalize(texts[:, :DIM].float()), image_ids, text_ids)
    table = loss.image_anchors
    columns = [getattr(table, name) for name in table.columns]
    last = dist.get_world_size() - 1
    return {
        "bytes": sum(column.untyped_storage().nbytes() for column in columns),
        "rows": {name: getattr(table, name).clone() for name in table.columns},
        "full": {name: table.full(name) for name in table.columns},
        "state": loss.state_dict(),
        "gathered on the last": gather_state(loss, last),
        "gathered on the first": gather_state(loss),
    }


def update_by(kind: str, rank: int, ids: list[int], num_anchors: int) -> dict[str, torch.Tensor]:
    """Add up what every id's occurrences bring, each rank with its own values, twice over; ``tau`` starts from 0.5."""
    table = AnchorTable(num_anchors, kind, tau=0.5)
    found = []
    for step in range(2):
        occurrences = Occurrences(torch.tensor(ids), None, table)
        brought = occurrences.mean(torch.arange(1.0, len(ids) + 1)[:, None] * (rank + 1) + step)
        new = table.look_up("tau", occurrences.ids) + brought
        table.update_(occurrences.ids, tau=new)
        found += [occurrences.to_local(new, missing=-1.0), Occurrences(torch.tensor(ids), None, table).gather("tau")]
    return {"found": torch.cat(found, dim=1), "whole": table.full("tau").clone()}


def refusal_of(loss: nn.Module, features: tuple[torch.Tensor, torch.Tensor], *ids: torch.Tensor) -> str:
    """The message of the error that the batch is refused with."""
    try:
        loss(*features, *ids)
    except ValueError as refusal:
        return str(refusal)
    return "not refused"


def refuse(loss_of_one: nn.Module, rank: int, world_size: int) -> dict[str, str]:
    """An id outside a sharded table, on one rank; and a loss that was built before the group."""
    images, texts, image_ids, text_ids = (part[:4] for part in global_batch(0))
    features = normalize(images[:, :DIM]), normalize(texts[:, :DIM])
    loss = build_loss("sogclr", num_images=NUM_IMAGES, num_texts=NUM_TEXTS, tables="sharded").double()
    wrong = text_ids + (NUM_TEXTS if rank == world_size - 1 else 0)
    refusals = {"id": refusal_of(loss, features, image_ids, wrong)}
    refusals["early"] = refusal_of(loss_of_one, features, image_ids, text_ids)
    if not loss.state_dict()["image_anchors.log_u"].isinf().all():
        refusals["id"] = "the tables moved"
    return refusals


def run_rank(rank: int, world_sizes: tuple[int, ...], folder: str) -> None:
    """Join a gloo group of each size in turn, the one of four first, and leave the results in ``folder``."""
    torch.set_num_threads(1)
    anchors_module._CHUNK = 12  # so that putting a column together takes several chunks, the last a ragged one
    early = build_loss("sogclr", num_images=NUM_IMAGES, num_texts=NUM_TEXTS, tables="sharded").double()
    saved = Path(folder) / f"saved-on-{SAVED_ON}.pt"
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        join(rank, world_size, folder)
        results: dict[str, Any] = {
            (case, kind): train(case, rank, world_size, **KINDS[kind]) for case in TABLE_CASES for kind in KINDS
        }
        if world_size == SAVED_ON:
            if rank == 0:
                torch.save(results, saved)
            results["measured"] = measure(rank)
            one_owner, few = [0, 4, 0, 8], [2, 0, 2, 1]
            for kind in ("replicated", "sharded"):
                results["one owner", kind] = update_by(kind, rank, one_owner, 12)
                results["fewer rows than ranks", kind] = update_by(kind, rank, few, 3)
        else:
            starts = torch.load(saved, weights_only=True)
            for case in TABLE_CASES:
                for before, after in (("sharded", "sharded"), ("sharded", "replicated"), ("replicated", "sharded")):
                    results[case, before, after] = train(
                        case, rank, world_size, steps=MORE_STEPS, start=starts[case, before], **KINDS[after]
                    )
        if world_size > 1:
            results["refusals"] = refuse(early, rank, world_size)
        torch.save(results, Path(folder) / f"{world_size}-{rank}.pt")
        dist.destroy_process_group()

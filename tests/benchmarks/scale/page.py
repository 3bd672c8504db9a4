"""Write the tables of docs/scale.md: ``python -m tests.benchmarks.scale.page``.

A table stands between ``<!-- scale: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.scale.budget import (
    Run,
    feature_bytes,
    list_loss_transfers,
    list_weight_transfers,
    place_tables,
    table_bytes,
    weight_bytes,
)

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"
GIB, MIB = 2**30, 2**20
GPU_MEMORY = 80 * 10**9
PARAMETERS = 149_620_736  # of ViT-B/16 in open_clip, without the temperature
DIM = 512
BATCHES = {8: 4096, 64: 32_768, 512: 65_536}  # pairs of a step, by GPUs
PAIRS = {"3 M": 3 * 10**6, "400 M": 4 * 10**8, "5 B": 5 * 10**9}
LOSSES = ("clip", "siglip", "cyclip", "macl", "macl-anchor", "sogclr", "isogclr", "rgcl_g")


def example(gpus: int, pairs: int = 1, loss: str = "isogclr") -> Run:
    """A run of ViT-B/16 in bf16 with one caption per image."""
    return Run(loss, gpus, BATCHES[gpus], DIM, PARAMETERS, pairs, pairs, bf16=True)


def write_placement() -> list[list[str]]:
    """Where the tables of ``isogclr`` go, and what they take."""
    rows = [["pairs", "both tables", *(f"{gpus} GPUs" for gpus in BATCHES)]]
    for name, pairs in PAIRS.items():
        row = [name, describe(table_bytes(example(8, pairs)))]
        for gpus in BATCHES:
            placed = place_tables(example(gpus, pairs), GPU_MEMORY)
            kind = "sharded" if placed.sharded_tables else "replicated"
            where = "of the host for each GPU" if placed.table_on_cpu else "a GPU"
            row.append(f"{kind}, {describe(table_bytes(placed))} {where}")
        rows.append(row)
    return rows


def write_step() -> list[list[str]]:
    """What a GPU keeps and gets from others in a step."""
    names = ["a GPU", *(f"{gpus} GPUs, B = {batch:,}" for gpus, batch in BATCHES.items())]
    runs = [example(gpus) for gpus in BATCHES]
    sharded = [replace(run, fsdp=True) for run in runs]
    kept = [replace(run, reshard=False) for run in sharded]
    return [
        names,
        ["keeps weights, gradients, moments: DDP", *(describe(weight_bytes(run)) for run in runs)],
        ["... with FSDP2", *(describe(weight_bytes(run)) for run in sharded)],
        ["keeps features for the loss", *(describe(feature_bytes(run)) for run in runs)],
        ["gets for the loss", *(describe(received(list_loss_transfers, run)) for run in runs)],
        ["gets for weights and gradients: DDP", *(describe(received(list_weight_transfers, run)) for run in runs)],
        ["... with FSDP2", *(describe(received(list_weight_transfers, run)) for run in sharded)],
        ["... weights kept after forward", *(describe(received(list_weight_transfers, run)) for run in kept)],
    ]


def write_losses() -> list[list[str]]:
    """What each loss keeps for an image or text, and sends in a step."""
    rows = [["loss", "numbers kept per image and text", "collectives", "of them on features", "gets, 64 GPUs"]]
    for loss in LOSSES:
        run = example(64, loss=loss)
        transfers = list_loss_transfers(run)
        large = sum(transfer.times for transfer in transfers if "features" in transfer.what)
        name = f"`{loss}`" if loss != "macl-anchor" else "`macl`, `alignment: anchor`"
        total = sum(transfer.times for transfer in transfers)
        rows.append([name, str(run.columns), str(total), str(large), describe(received(list_loss_transfers, run))])
    return rows


TABLES: dict[str, Callable[[], list[list[str]]]] = {
    "placement": write_placement,
    "step": write_step,
    "losses": write_losses,
}


def received(transfers: Callable[[Run], list], run: Run) -> float:
    """Bytes that a rank gets from others in a step."""
    return sum(transfer.received(run.ranks) for transfer in transfers(run))


def describe(size: float) -> str:
    """Bytes with three significant digits."""
    amount, unit = (size / GIB, "GiB") if size >= GIB else (size / MIB, "MiB")
    digits = 0 if amount >= 100 else 1 if amount >= 10 else 2
    return f"{amount:.{digits}f} {unit}"


def format_rows(rows: list[list[str]]) -> str:
    """A table in Markdown; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def fill(text: str) -> str:
    """Put the tables into a page's text."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- scale: {match[1]} -->\n{format_rows(TABLES[match[1]]())}\n<!-- end -->"

    return re.sub(r"<!-- scale: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""One process: where tables lie, what a step touches, what a state dict must hold, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bimodal_cl.errors import UserError
from bimodal_cl.losses import build_loss
from bimodal_cl.losses.tables.anchors import gather_state
from tests.test_losses.linear_towers import CASES, global_batch
from tests.test_losses.tables.table_ranks import TABLE_CASES
from tests.test_losses.test_losses_facts import assert_same_state, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:.*rho")

PLACES: dict[str, dict[str, Any]] = {
    "replicated": {},
    "sharded": {"tables": "sharded"},
    "replicated-cpu": {"table_device": "cpu"},
    "sharded-cpu": {"tables": "sharded", "table_device": "cpu"},
}
NUM_IMAGES, NUM_TEXTS = 40, 100


def build(case: str, place: str, num_images: int = NUM_IMAGES, num_texts: int = NUM_TEXTS) -> nn.Module:
    """The case's loss with its tables of a kind and in a place."""
    name, hyper = CASES[case]
    return build_loss(name, num_images=num_images, num_texts=num_texts, **hyper, **PLACES[place])


def columns_of(loss: nn.Module) -> dict[str, Tensor]:
    """Every column of both tables."""
    tables = {"image": loss.image_anchors, "text": loss.text_anchors}
    return {f"{kind}.{name}": getattr(table, name) for kind, table in tables.items() for name in table.columns}


def take_steps(loss: nn.Module, num_steps: int = 2, dtype: torch.dtype = torch.float32) -> list[float]:
    """The losses of a few steps on fixed features."""
    values = []
    for step in range(num_steps):
        images, texts, image_ids, text_ids = global_batch(step)
        out = loss(normalize(images.to(dtype)), normalize(texts.to(dtype)), image_ids, text_ids)
        values.append(out.loss.item())
    return values


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", TABLE_CASES)
def test_tables_stay_where_they_are_kept(case: str, place: str) -> None:
    """``meta`` stands for the accelerator: tables on the CPU keep their values, the others go along."""
    loss = build(case, place)
    take_steps(loss)
    before = {key: column.clone() for key, column in columns_of(loss).items()}
    loss.to("meta")
    for key, column in columns_of(loss).items():
        if place.endswith("cpu"):
            assert column.device.type == "cpu"
            torch.testing.assert_close(column, before[key], rtol=0, atol=0, equal_nan=True)
        else:
            assert column.device.type == "meta"
        assert column.dtype == torch.float32


@pytest.mark.parametrize("place", PLACES)
def test_rows_are_read_and_written_by_id(place: str) -> None:
    """Whatever the precision of what is written, the table keeps its own."""
    table = build("isogclr", place, 9, 9).image_anchors
    table.update_(torch.tensor([3, 8]), tau=torch.tensor([[0.25], [0.75]], dtype=torch.float64))
    assert table.look_up("tau", torch.tensor([8, 3])).tolist() == [[0.75], [0.25]]
    assert table.tau.dtype == torch.float32
    assert table.full("tau").tolist() == [0.25 if i == 3 else 0.75 if i == 8 else table.tau[0].item() for i in range(9)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", TABLE_CASES)
def test_precision(case: str, place: str) -> None:
    """Low precision is for towers: tables follow ``double()`` alone, and to their exact initial values."""
    loss = build(case, place)
    for lower in (torch.float16, torch.bfloat16):
        loss.to(lower)
        assert {column.dtype for column in columns_of(loss).values()} == {torch.float32}
    assert take_steps(loss) == take_steps(build(case, place))
    loss = build(case, place).double()
    assert {column.dtype for column in columns_of(loss).values()} == {torch.float64}
    if "image.tau" in columns_of(loss):
        assert set(loss.image_anchors.tau.tolist()) == {CASES[case][1]["tau_init"]}
    loss.bfloat16()
    assert {column.dtype for column in columns_of(loss).values()} == {torch.float64}


@pytest.mark.parametrize("place", [place for place in PLACES if place != "replicated"])
@pytest.mark.parametrize("case", TABLE_CASES)
def test_places_give_the_same_bits(case: str, place: str) -> None:
    loss, plain = build(case, place), build(case, "replicated")
    assert take_steps(loss, 4) == take_steps(plain, 4)
    assert_same_state(snapshot(loss), snapshot(plain))
    assert_same_state(gather_state(loss), snapshot(plain))
    for name in loss.image_anchors.columns:
        whole = loss.image_anchors.full(name)
        torch.testing.assert_close(whole, getattr(plain.image_anchors, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", TABLE_CASES)
def test_wrappers_have_nothing_to_broadcast(case: str) -> None:
    """DistributedDataParallel copies rank 0's buffers over every other rank's, which would end a sharded table."""
    loss = build(case, "sharded")
    assert list(loss.buffers()) == []
    assert set(loss.state_dict()) == set(build(case, "replicated").state_dict()) != set()


class WholeColumns(TorchDispatchMode):
    """Notes the operations that read or write a tensor of at least ``size`` elements, but for single rows of it."""

    ROWS = (torch.ops.aten.index_select.default, torch.ops.aten.index_copy_.default)

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.found, self.num_rows = size, [], 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_large = any(isinstance(x, Tensor) and x.numel() >= self.size for x in tree_leaves((args, kwargs, result)))
        if is_large and func in self.ROWS:
            self.num_rows += 1
        elif is_large:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", TABLE_CASES)
def test_a_step_touches_rows_alone(case: str, place: str) -> None:
    """Nothing that a step computes has the size of a table, so its cost does not grow with the data set."""
    size = 50_000
    loss = build(case, place, size, size)
    with WholeColumns(size) as large:
        take_steps(loss, 1)
    assert large.found == []
    assert large.num_rows >= 2 * 2  # reads and writes, images and texts
    with WholeColumns(size) as large:  # the watch itself works
        loss.double()
    assert large.found != []


def test_a_state_dict_that_does_not_fit() -> None:
    loss = build("isogclr", "sharded")
    before = snapshot(loss)
    state = {key: value.clone() for key, value in before.items()}
    with pytest.raises(RuntimeError, match=r"image_anchors\.tau has shape \[39\], this table needs \[40\]"):
        loss.load_state_dict({**state, "image_anchors.tau": state["image_anchors.tau"][:39]})
    with pytest.raises(RuntimeError, match=r"Missing.*text_anchors\.log_u"):
        loss.load_state_dict({key: value for key, value in state.items() if key != "text_anchors.log_u"})
    with pytest.raises(RuntimeError, match=r"Unexpected.*text_anchors\.alignment"):
        loss.load_state_dict({**state, "text_anchors.alignment": state["text_anchors.tau"]})
    assert_same_state(snapshot(loss), before)


def test_loading_copies() -> None:
    """A loaded state is the loss's own: a step does not write into what it was loaded from."""
    loss = build("isogclr", "replicated")
    state = {key: value.clone() for key, value in loss.state_dict().items()}
    loss.load_state_dict(state)
    take_steps(loss)
    assert state["image_anchors.log_u"].isinf().all()
    assert not loss.image_anchors.log_u.isinf().all()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Run as a user does, without the test run's type checks, which would refuse a wrong literal first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("isogclr", {"tables": "shared"}, "tables='shared'.*'replicated'.*'sharded'"),
        ("sogclr", {"table_device": "cuda"}, "table_device='cuda'.*'cpu'"),
        ("macl", {"tables": "sharded"}, "alignment='batch' has no tables.*tables='sharded'"),
        ("macl", {"table_device": "cpu"}, "alignment='batch' has no tables.*table_device='cpu'"),
    ],
)
def test_unknown_or_useless(name: str, hyper: dict[str, Any], message: str, unchecked: None) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss(name, num_images=4, num_texts=4, **hyper)


def test_a_loss_without_tables_has_no_such_argument() -> None:
    with pytest.raises(UserError, match=r"'clip'.*'tables'"):
        build_loss("clip", tables="sharded")


@pytest.mark.parametrize("place", PLACES)
def test_ids_outside_the_table(place: str) -> None:
    loss = build("isogclr", place, NUM_IMAGES - 1)
    before = snapshot(loss)
    images, texts, image_ids, text_ids = global_batch(0)
    image_ids[5] = NUM_IMAGES - 1
    with pytest.raises(ValueError, match=f"image id {NUM_IMAGES - 1} is outside the table of {NUM_IMAGES - 1} rows"):
        loss(normalize(images.float()), normalize(texts.float()), image_ids, text_ids)
    assert_same_state(snapshot(loss), before)

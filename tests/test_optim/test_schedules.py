"""Learning rates in closed form, and the groups that they belong to."""

from __future__ import annotations

import math

import pytest
import torch

from bimodal_cl.optim import (
    Part,
    build_optimizer,
    compute_learning_rate,
    compute_learning_rates,
    rates_by_part,
    read_peaks,
    split_parts,
)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_the_cooldown_is_a_power_of_what_is_left(power):
    keys = {"learning_rate": 2.0, "min_learning_rate": 0.5, "warmup_steps": 10, "schedule": "constant_cooldown"}
    rates = [compute_learning_rate(s, 100, cooldown_steps=20, cooldown_power=power, **keys) for s in range(101)]
    assert rates[:10] == pytest.approx([2.0 * (s + 1) / 10 for s in range(10)])
    assert rates[10:81] == [2.0] * 71
    for step in range(80, 101):
        assert rates[step] == pytest.approx(0.5 + 1.5 * ((100 - step) / 20) ** power)
    assert rates[100] == 0.5


def test_the_cooldown_is_open_clips():
    from open_clip_train.scheduler import const_lr_cooldown

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = const_lr_cooldown(optimizer, 0.3, 5, 60, 25, 1.5, 0.01)
    keys = {"learning_rate": 0.3, "min_learning_rate": 0.01, "warmup_steps": 5, "schedule": "constant_cooldown"}
    for step in range(60):
        ours = compute_learning_rate(step, 60, cooldown_steps=25, cooldown_power=1.5, **keys)
        assert ours == pytest.approx(theirs(step), rel=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "constant", "constant_cooldown"])
def test_a_schedule_scales_the_peaks_of_all_parts(schedule):
    keys = {"learning_rate": 1.0, "min_learning_rate": 0.2, "warmup_steps": 2, "schedule": schedule}
    keys |= {"cooldown_steps": 4, "peaks": {"image/decayed": 0.25, "heads/decayed": 2.0}}
    for step in range(12):
        rates = compute_learning_rates(step, 12, temperature_learning_rate=0.125, **keys)
        assert rates["image/decayed"] == pytest.approx(rates["decayed"] / 4)
        assert rates["heads/decayed"] == pytest.approx(rates["decayed"] * 2)
        assert rates["temperature"] == 0.125


def layers(*widths):
    return [[torch.nn.Parameter(torch.ones(width, width)), torch.nn.Parameter(torch.ones(width))] for width in widths]


def names_of(parts):
    return [(part.name, part.learning_rate) for part in parts]


@pytest.mark.parametrize(
    ("image", "text", "heads", "expected"),
    [
        ((None, 1.0), (None, 1.0), None, []),
        ((0.1, 1.0), (None, 1.0), None, [("image", 0.1)]),
        ((None, 1.0), (0.2, 1.0), 3.0, [("text", 0.2), ("heads", 3.0)]),
        ((None, 0.5), (None, 1.0), None, [("image/layer_00", 0.25), ("image/layer_01", 0.5)]),
        ((0.1, 0.5), (None, 1.0), None, [("image/layer_00", 0.025), ("image/layer_01", 0.05)]),
    ],
)
def test_parts_are_those_that_differ(image, text, heads, expected):
    parts = split_parts(
        {"image": layers(2, 3, 4), "text": layers(5, 6)},
        learning_rate=1.0,
        tower_learning_rates={"image": image[0], "text": text[0]},
        layer_decays={"image": image[1], "text": text[1]},
        heads_learning_rate=heads,
    )
    assert [(name, pytest.approx(rate)) for name, rate in names_of(parts)] == expected


def test_groups_hold_every_parameter_once_and_locked_ones_not_at_all():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5), torch.nn.Linear(5, 6))
    model[0].requires_grad_(False)
    part = Part("image", 0.01, list(model[1].parameters()))
    optimizer = build_optimizer(model, learning_rate=1.0, weight_decay=0.3, parts=[part])
    shapes = {g["name"]: [tuple(p.shape) for p in g["params"]] for g in optimizer.param_groups}
    assert shapes == {
        "decayed": [(6, 5)],
        "not_decayed": [(6,)],
        "image/decayed": [(5, 4)],
        "image/not_decayed": [(5,)],
    }
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups}["image/decayed"] == 0.3
    assert read_peaks(optimizer) == {"image/decayed": 0.01, "image/not_decayed": 0.01}
    rates = {"decayed": 1.0, "image/layer_00/decayed": 0.1, "image/layer_01/decayed": 0.2, "matrices": 1.0}
    assert rates_by_part(rates) == {"image": 0.2}


def quadratic_step(name: str, gradient: list[float], **keys) -> torch.Tensor:
    """Return how far one step moves a matrix that starts at ones."""
    matrix = torch.nn.Parameter(torch.ones(1, len(gradient)))
    model = torch.nn.Module()
    model.register_parameter("matrix", matrix)
    optimizer = build_optimizer(model, learning_rate=0.1, weight_decay=0.0, name=name, **keys)
    matrix.grad = torch.tensor([gradient])
    optimizer.step()
    return matrix.detach() - 1


def test_first_steps_are_what_the_papers_say():
    gradient = [3.0, -4.0]
    torch.testing.assert_close(quadratic_step("lion", gradient), -0.1 * torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(quadratic_step("adamw", gradient, eps=1e-12), -0.1 * torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(quadratic_step("lamb", gradient, eps=1e-12), -0.1 * torch.tensor([[1.0, -1.0]]))


def test_lamb_scales_by_the_norms_of_matrix_and_update():
    matrix = torch.nn.Parameter(torch.full((2, 2), 3.0))
    model = torch.nn.Module()
    model.register_parameter("matrix", matrix)
    optimizer = build_optimizer(model, learning_rate=0.1, weight_decay=0.5, name="lamb", eps=1e-12)
    matrix.grad = torch.full((2, 2), 7.0)
    optimizer.step()
    update = 1.0 + 0.5 * 3.0  # Adam's first step, and the decay
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 3.0 - 0.1 * update * 3.0 / update))


def test_muon_moves_a_matrix_by_equal_singular_values():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(16, 8))
    model = torch.nn.Module()
    model.register_parameter("matrix", matrix)
    optimizer = build_optimizer(model, learning_rate=0.1, weight_decay=0.0, name="muon", hidden=[matrix])
    assert [group["name"] for group in optimizer.param_groups] == ["decayed", "matrices", "not_decayed"]
    matrix.grad = torch.randn(16, 8)
    optimizer.step()
    values = torch.linalg.svdvals(matrix.detach()) / (0.1 * 0.2 * math.sqrt(16))
    assert values.min() > 0.6 and values.max() < 1.4

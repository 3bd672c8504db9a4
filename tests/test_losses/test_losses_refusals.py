"""Every mistake is refused in one line that gives the value, before anything moves."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from bimodal_cl.errors import UserError
from bimodal_cl.losses import LOSSES, build_loss
from bimodal_cl.losses.module.registry import LOSS_SETTINGS
from tests.test_losses.agreement import build_double, take_step
from tests.test_losses.pair_batches import NUM_IMAGES, NUM_TEXTS, PairBatch, draw_batches, unit
from tests.test_losses.test_losses_facts import assert_same_state, snapshot

OUT_OF_RANGE: list[tuple[str, dict[str, Any], str]] = [
    ("clip", {"tau_min": 0.5, "tau_init": 0.07}, r"tau_min=0\.5 .*tau_init=0\.07"),
    ("clip", {"tau_min": 0.0}, r"tau_min=0\.0"),
    ("clip", {"tau_init": -1.0}, r"tau_init=-1\.0"),
    ("clip", {"tile_size": 0}, r"tile_size=0"),
    ("macl", {"tau_base": 0.0}, r"tau_base=0\.0"),
    ("macl", {"alpha": -0.5}, r"alpha=-0\.5"),
    ("macl", {"alignment_base": 1.5}, r"alignment_base=1\.5"),
    ("macl", {"alignment_base": -1.01}, r"alignment_base=-1\.01"),
    ("macl", {"text_tau_base": -0.1}, r"text_tau_base=-0\.1"),
    ("macl", {"text_alpha": -0.5}, r"text_alpha=-0\.5"),
    ("macl", {"text_alignment_base": 2.0}, r"text_alignment_base=2\.0"),
    ("macl", {"mu": 0.0}, r"mu=0\.0"),
    ("macl", {"mu": 1.5}, r"mu=1\.5"),
    ("macl", {"alpha": 1.0, "alignment_base": 0.5}, r"alpha=1\.0.*alignment_base=0\.5.*-0\.5"),
    ("sogclr", {"tau": 0.0}, r"tau=0\.0"),
    ("sogclr", {"gamma": 0.0}, r"gamma=0\.0"),
    ("sogclr", {"gamma": 1.5}, r"gamma=1\.5"),
    ("isogclr", {"tau_min": 0.5, "tau_max": 0.05}, r"tau_min=0\.5 must not exceed tau_max=0\.05"),
    ("isogclr", {"tau_min": 0.0}, r"tau_min=0\.0"),
    ("isogclr", {"tau_init": 2.0}, r"tau_init=2\.0"),
    ("isogclr", {"gamma": -0.1}, r"gamma=-0\.1"),
    ("isogclr", {"gamma": math.nan}, r"gamma=nan"),
    ("isogclr", {"rho": -1.0}, r"rho=-1\.0"),
    ("isogclr", {"beta": 0.0}, r"beta=0\.0"),
    ("isogclr", {"beta": 1.25}, r"beta=1\.25"),
    ("isogclr", {"eta": 0.0}, r"eta=0\.0"),
    ("isogclr", {"rho_fraction": 1.5}, r"rho_fraction=1\.5"),
    ("isogclr", {"rho_fraction": 0.5, "rho": 3.0}, r"rho=3\.0.*rho_fraction=0\.5"),
    ("isogclr", {"tau_max": math.inf}, r"tau_max=inf"),
    ("isogclr", {"eta_schedule": "cosine", "eta_min": -0.1}, r"eta_min=-0\.1"),
    ("isogclr", {"eta_schedule": "exp", "eta": 0.001, "eta_min": 0.002}, r"eta_min=0\.002 must not exceed eta=0\.001"),
    ("isogclr", {"eta_schedule": "exp", "eta_decay": 0.0}, r"eta_decay=0\.0"),
    ("isogclr", {"tau_optimizer": "adam", "adam_beta1": 1.0}, r"adam_beta1=1"),
    ("isogclr", {"tau_optimizer": "adam", "adam_beta2": -0.5}, r"adam_beta2=-0\.5"),
    ("isogclr", {"tau_optimizer": "adam", "adam_eps": 0.0}, r"adam_eps=0\.0"),
    ("siglip", {"tau_min": 0.5}, r"tau_min=0\.5 must not exceed tau_init=0\.1"),
    ("siglip", {"bias_init": math.inf}, r"bias_init=inf"),
    ("cyclip", {"tau_init": 0.001}, r"tau_min=0\.01 must not exceed tau_init=0\.001"),
    ("cyclip", {"lambda_in_modal": -1.0}, r"lambda_in_modal=-1\.0"),
    ("cyclip", {"lambda_cross_modal": math.nan}, r"lambda_cross_modal=nan"),
    ("cyclip", {"lambda_in_modal": 0.0, "lambda_cross_modal": 0.0}, r"lambda_in_modal=0 .*'clip'"),
    ("rgcl_g", {"tau_min": 0.0}, r"tau_min=0\.0"),
    ("rgcl_g", {"gamma": 0.0}, r"gamma=0\.0"),
    ("rgcl_g", {"rho": -2.0}, r"rho=-2\.0"),
    ("rgcl_g", {"rho_fraction": 0.5, "rho": 3.0}, r"rho=3\.0.*rho_fraction=0\.5"),
]
WITHOUT_EFFECT: list[tuple[str, dict[str, Any], str]] = [
    ("macl", {"mu": 0.5}, r"mu=0\.5 has no effect with alignment='batch'"),
    ("isogclr", {"adam_beta1": 0.8}, r"adam_beta1=0\.8 has no effect with tau_optimizer='momentum'"),
    ("isogclr", {"adam_beta2": 0.8}, r"adam_beta2=0\.8 has no effect with tau_optimizer='momentum'"),
    ("isogclr", {"adam_eps": 0.8}, r"adam_eps=0\.8 has no effect with tau_optimizer='momentum'"),
    ("isogclr", {"tau_optimizer": "adam", "beta": 0.5}, r"beta=0\.5 has no effect with tau_optimizer='adam'"),
    ("isogclr", {"eta_min": 0.001}, r"eta_min=0\.001 has no effect with eta_schedule='constant'"),
    ("isogclr", {"eta_decay": 0.5}, r"eta_decay=0\.5 has no effect with eta_schedule='constant'"),
    (
        "isogclr",
        {"eta_schedule": "cosine", "eta_decay": 0.5},
        r"eta_decay=0\.5 has no effect with eta_schedule='cosine'",
    ),
]
WRONG_TYPES: list[tuple[str, dict[str, Any], str]] = [
    ("clip", {"tau_init": "0.07"}, "'clip': tau_init='0.07' must be a number"),
    ("siglip", {"bias_init": None}, "'siglip': bias_init=None must be a number"),
    ("cyclip", {"lambda_in_modal": [0.25]}, "'cyclip': lambda_in_modal=.* must be a number"),
    ("macl", {"reweight": "false"}, "'macl': reweight='false' must be True or False"),
    ("macl", {"text_alpha": "0.5"}, "'macl': text_alpha='0.5' must be a number or None"),
    ("sogclr", {"gamma": True}, "'sogclr': gamma=True must be a number"),
    ("isogclr", {"tile_size": 2.5}, "'isogclr': tile_size=2.5 must be a whole number or 'auto' or None"),
    ("isogclr", {"mask_repeats": 1}, "'isogclr': mask_repeats=1 must be True or False"),
    ("isogclr", {"tau_optimizer": "sgd"}, "'isogclr': tau_optimizer='sgd' must be one of 'momentum', 'adam'"),
    ("isogclr", {"eta_schedule": "linear"}, "eta_schedule='linear' must be one of 'constant', 'cosine', 'exp'"),
    ("rgcl_g", {"rho": "6.5"}, "'rgcl_g': rho='6.5' must be a number"),
]


@pytest.mark.parametrize(("name", "hyper", "message"), OUT_OF_RANGE)
def test_out_of_range(name: str, hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        build_loss(name, num_images=4, num_texts=4, **hyper)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "hyper", "message"), WITHOUT_EFFECT)
def test_values_without_effect(name: str, hyper: dict[str, Any], message: str) -> None:
    """Nothing is accepted and ignored; the same value is fine where it is read."""
    with pytest.raises(ValueError, match=message):
        build_loss(name, num_images=4, num_texts=4, **hyper)


@pytest.mark.parametrize(("name", "hyper", "message"), WRONG_TYPES)
def test_wrong_types(name: str, hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_loss(name, num_images=4, num_texts=4, **hyper)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Run as a user does, without the test run's type checks, which would refuse a wrong literal first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_whole_numbers_and_numpys_are_numbers(unchecked: None) -> None:
    loss = build_loss("isogclr", num_images=4, num_texts=np.int64(4), rho=np.float32(1), tau_max=1)
    assert (loss.num_texts, loss.settings.tau_max) == (4, 1)


@pytest.mark.parametrize("sizes", [{"num_images": "4", "num_texts": 4}, {"num_images": 4, "num_texts": 4.0}])
def test_table_sizes_are_whole_numbers(sizes: dict[str, Any], unchecked: None) -> None:
    with pytest.raises(UserError, match=r"'sogclr': num_(images='4'|texts=4\.0) must be a whole number"):
        build_loss("sogclr", **sizes)


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("macl", {"alignment": "image"}, r"alignment\n.*'batch' or 'anchor'.*input_value='image'"),
        ("sogclr", {"gamma_schedule": "linear"}, r"gamma_schedule\n.*'constant' or 'cosine'.*input_value='linear'"),
        ("isogclr", {"tau_optimizer": "sgd"}, r"tau_optimizer\n.*'momentum' or 'adam'.*input_value='sgd'"),
        ("isogclr", {"eta_schedule": "linear"}, r"eta_schedule\n.*'constant', 'cosine' or 'exp'"),
        ("rgcl_g", {"gamma": "much"}, r"gamma\n.*valid number.*input_value='much'"),
        ("siglip", {"tau_min": True}, r"tau_min\n.*should be a number.*input_value=True"),
    ],
)
def test_settings_refuse_alone(name: str, hyper: dict[str, Any], message: str) -> None:
    """Built by their class, as the config's schema does, which also takes a flag's text for a number."""
    with pytest.raises(ValueError, match=message):
        LOSS_SETTINGS[name](name=name, **hyper)
    assert LOSS_SETTINGS["rgcl_g"](name="rgcl_g", gamma="0.3").gamma == 0.3


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("isogclar", {}, "isogclar.*did you mean 'isogclr'"),
        ("quux", {}, "quux.*valid: .*clip"),
        ("isogclr", {"gama": 0.5}, "'isogclr'.*'gama'.*did you mean 'gamma'"),
        ("sogclr", {"rho": 3.0}, "'sogclr'.*'rho'"),
        ("clip", {"gamma": 0.5}, "'clip'.*'gamma'"),
        ("macl", {"tau_init": 0.5}, "'macl'.*'tau_init'"),
    ],
)
def test_unknown_names(name: str, hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_loss(name, num_images=4, num_texts=4, **hyper)


@pytest.mark.parametrize("name", ["sogclr", "isogclr", "rgcl_g"])
def test_table_sizes_are_needed(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}'.*num_images"):
        build_loss(name, num_texts=4)
    with pytest.raises(UserError, match=f"'{name}'.*num_texts"):
        build_loss(name, num_images=4)
    with pytest.raises(ValueError, match="0"):
        build_loss(name, num_images=0, num_texts=4)


def test_anchor_alignment_needs_table_sizes() -> None:
    with pytest.raises(ValueError, match="num_images and num_texts"):
        build_loss("macl", alignment="anchor")


def spoil(batch: PairBatch, **changes: Any) -> PairBatch:
    """A copy with one thing wrong."""
    fields = {"image_features": batch.image_features.copy(), "text_features": batch.text_features.copy()}
    fields |= {"image_ids": list(batch.image_ids), "text_ids": list(batch.text_ids)}
    for field, value in changes.items():
        fields[field][1] = value
    return PairBatch(**fields)


@pytest.mark.filterwarnings("ignore:.*rho")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_features": math.nan}, r"not finite.*rank 0.*1 of"),
        ({"text_features": math.inf}, r"not finite.*rank 0.*1 of"),
        ({"image_ids": NUM_IMAGES}, f"image id {NUM_IMAGES} .*{NUM_IMAGES}"),
        ({"text_ids": NUM_TEXTS + 5}, f"text id {NUM_TEXTS + 5} .*{NUM_TEXTS}"),
        ({"image_ids": -1}, "image id -1 "),
        ({"text_ids": -3}, "text id -3 "),
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_a_bad_batch_moves_nothing(name: str, changes: dict[str, Any], message: str) -> None:
    loss = build_double(name, {"alignment": "anchor"} if name == "macl" else {})
    first, second = draw_batches("random", 2, seed=31)
    take_step(loss, first)
    before = snapshot(loss)
    with pytest.raises(ValueError, match=message):
        take_step(loss, spoil(second, **changes))
    assert_same_state(snapshot(loss), before)


def test_empty_batch() -> None:
    empty = PairBatch(np.zeros((0, 4)), np.zeros((0, 4)), [], [])
    loss = build_double("clip", {})
    with pytest.raises(ValueError, match="empty"):
        loss(
            torch.tensor(empty.image_features),
            torch.tensor(empty.text_features),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(0, dtype=torch.int64),
        )


def test_rho_beyond_what_a_batch_can_show_is_warned_of() -> None:
    """Three negatives: ``log 3 = 1.1``. Below that nothing is said."""
    features = unit(np.random.default_rng(0).normal(size=(2, 4, 5)))
    batch = PairBatch(features[0], features[1], [0, 1, 2, 3], [0, 2, 4, 6])
    with pytest.warns(UserWarning, match=r"rho=6\.0.*1\.1"):
        take_step(build_double("isogclr", {}), batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take_step(build_double("isogclr", {"rho": 1.0}), batch)


def test_alpha_above_one_is_warned_of_and_a_negative_tau_refused() -> None:
    """``tau = 0.05 (1 + 2 (A - 0.8))`` is positive above ``A = 0.3`` only."""
    with pytest.warns(UserWarning, match=r"alpha=2\.0.*0\.3"):
        loss = build_double("macl", {"tau_base": 0.05, "alpha": 2.0, "alignment_base": 0.8, "alignment": "anchor"})
    axes = np.eye(4)
    take_step(loss, PairBatch(axes, axes, [0, 1, 2, 3], [0, 2, 4, 6]))
    before = snapshot(loss)
    with pytest.raises(ValueError, match=r"0\.05.*not positive"):
        take_step(loss, PairBatch(axes, axes[::-1].copy(), [4, 5, 6, 7], [8, 10, 12, 14]))
    assert_same_state(snapshot(loss), before)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_progress_outside_the_training(progress: float) -> None:
    with pytest.raises(ValueError, match=f"progress={progress}"):
        build_loss("clip").set_progress(progress)


def list_bounds() -> list[tuple[str, str, float]]:
    """Of every loss, every field with a bound and a value just beyond it."""
    found = []
    for name, settings in LOSS_SETTINGS.items():
        for key, schema in settings.model_json_schema()["properties"].items():
            for choice in [schema, *schema.get("anyOf", [])]:
                beyond = {"minimum": -1, "exclusiveMinimum": 0, "maximum": 1, "exclusiveMaximum": 0}
                found += [(name, key, choice[bound] + step) for bound, step in beyond.items() if bound in choice]
    return found


@pytest.mark.parametrize(("name", "key", "value"), list_bounds())
def test_every_bound_is_held(name: str, key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{key}={re.escape(repr(value))} must be a (whole )?number in [\[(]"):
        build_loss(name, num_images=4, num_texts=4, **{key: value})


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("images", "texts", "image_ids", "text_ids", "message"),
    [
        ((6, 4), (1, 4), 6, 6, "got 6, 1, 6 and 6"),
        ((6, 4), (6, 4), 9, 9, "got 6, 6, 9 and 9"),
        ((6, 4), (6, 3), 6, 6, "features must be matrices"),
        ((6, 4), (6, 4), (6, 1), (6, 1), "ids must be flat"),
        ((6, 4), (6, 4), 6.0, 6.0, "ids must be flat .* of whole numbers"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    name: str, images: tuple, texts: tuple, image_ids: Any, text_ids: Any, message: str, unchecked: None
) -> None:
    def make_ids(shape: Any) -> torch.Tensor:
        if isinstance(shape, tuple):
            return torch.arange(shape[0]).view(shape)
        return torch.arange(int(shape)) + (0.4 if isinstance(shape, float) else 0)

    loss = build_double(name, {"alignment": "anchor"} if name == "macl" else {})
    before = snapshot(loss)
    with pytest.raises(ValueError, match=message):
        loss(torch.ones(images), torch.ones(texts), make_ids(image_ids), make_ids(text_ids))
    assert_same_state(snapshot(loss), before)


@pytest.mark.filterwarnings("ignore:.*rho")
@pytest.mark.parametrize("name", LOSSES)
def test_ids_of_any_whole_type_mean_the_same(name: str) -> None:
    hyper = {"alignment": "anchor"} if name == "macl" else {}
    results = []
    for image_type, text_type in ((torch.int64, torch.int64), (torch.int64, torch.int32), (torch.int16, torch.int8)):
        loss = build_double(name, hyper)
        features = torch.nn.functional.normalize(
            torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1)), dim=2
        )
        image_ids, text_ids = torch.tensor([0, 1, 1, 2, 3]), torch.tensor([0, 1, 2, 3, 4])
        out = loss(*features.double(), image_ids.to(image_type), text_ids.to(text_type))
        results.append((out.loss, snapshot(loss)))
    for value, state in results[1:]:
        assert torch.equal(value, results[0][0])
        assert_same_state(state, results[0][1])

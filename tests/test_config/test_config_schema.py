"""The schema has exactly these keys, agrees with the losses, and a saved config loads to an equal object."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bimodal_cl import train
from bimodal_cl.config.keys import dotted_keys
from bimodal_cl.config.model import Model
from bimodal_cl.config.schema import Config
from bimodal_cl.config.yaml_files import changed_keys, load_config, save_config
from bimodal_cl.losses.module.registry import LOSS_SETTINGS, LOSSES
from bimodal_cl.train import build_parser

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "train").glob("*.yaml"))

KEYS = """
output seed
data.train data.val data.features data.zero_shot data.num_workers data.crop_scale data.flip data.shuffle_window
data.max_bad_fraction
data.cache_dir data.cache_gb data.allow_pipe
model.name model.pretrained model.image_size model.embed_dim
model.image_mean model.image_std model.image_interpolation model.image_resize_mode
model.vision.timm_model_name model.vision.timm_model_pretrained model.vision.timm_pool model.vision.timm_proj
model.vision.timm_checkpoint_path model.vision.timm_checkpoint_by_order
model.vision.timm_drop model.vision.timm_drop_path model.vision.layers model.vision.width model.vision.head_width
model.vision.mlp_ratio model.vision.patch_size model.vision.patch_dropout model.vision.pool_type
model.text.hf_model_name model.text.hf_model_pretrained model.text.hf_tokenizer_name model.text.hf_pooler_type
model.text.hf_proj_type model.text.context_length model.text.vocab_size model.text.width model.text.heads
model.text.layers model.text.mlp_ratio
loss.name loss.tile_size loss.mask_repeats loss.products loss.tables loss.table_device
loss.tau_init loss.tau_min loss.tau_base loss.alpha loss.alignment_base
loss.alignment loss.mu loss.reweight loss.text_tau_base loss.text_alpha loss.text_alignment_base loss.tau loss.gamma
loss.gamma_schedule loss.tau_max loss.rho loss.rho_fraction loss.beta loss.eta loss.eta_schedule loss.eta_min
loss.eta_decay loss.tau_optimizer loss.adam_beta1 loss.adam_beta2 loss.adam_eps loss.bias_init loss.lambda_in_modal
loss.lambda_cross_modal loss.gamma_warmup loss.eta_warmup
optim.learning_rate optim.min_learning_rate optim.schedule optim.warmup_steps optim.weight_decay optim.beta1
optim.beta2 optim.eps optim.max_grad_norm optim.temperature_learning_rate
optim.name optim.momentum optim.heads_learning_rate optim.cooldown_steps optim.cooldown_power
optim.image.lock optim.image.unlocked_groups optim.image.learning_rate optim.image.layer_decay
optim.image.freeze_statistics
optim.text.lock optim.text.unlocked_groups optim.text.learning_rate optim.text.layer_decay
train.num_epochs train.num_steps train.global_batch_size train.accumulate_features train.precision train.compile
train.grad_checkpointing train.patch_dropout train.tf32 train.device
train.log_every train.evaluate_every train.non_finite train.max_non_finite train.timeout_seconds
ema.decay ema.decay_warmup ema.evaluate
checkpoint.every checkpoint.keep_last checkpoint.on_write_error checkpoint.best
tracking.trackers tracking.project tracking.name
"""


def test_the_knobs_are_these():
    """A loss added later may bring keys of its own; its own test freezes them."""
    later = {f"loss.{key}" for name in LOSSES[7:] for key in LOSS_SETTINGS[name].model_fields} - set(KEYS.split())
    assert sorted(set(dotted_keys()) - later) == sorted(KEYS.split())
    assert len(dotted_keys()) == len(set(dotted_keys()))


def test_every_field_is_described():
    def visit(section):
        for name, field in section.model_fields.items():
            inner = getattr(field.annotation, "model_fields", None)
            if inner is not None:
                visit(field.annotation)
            elif name not in ("name", "loss", "vision", "text"):
                assert field.description, f"{section.__name__}.{name}"

    visit(Config)


def test_the_section_loss_is_what_the_losses_declare():
    assert Config.model_fields["loss"].annotation.__args__ == tuple(LOSS_SETTINGS.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_save_to_an_equal_object(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_null_over_a_default_survives_saving(tmp_path):
    config = load_config(CONFIGS[0], {("optim", "max_grad_norm"): None})
    assert config.optim.max_grad_norm is None
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_flag_beats_file_beats_default():
    plain = load_config(CONFIGS[0])
    assert "learning_rate" in plain.optim.model_fields_set
    flagged = load_config(CONFIGS[0], {("optim", "learning_rate"): "3e-5"})
    assert flagged.optim.learning_rate == 3e-5
    assert flagged.optim.beta2 == 0.98
    assert changed_keys(plain, flagged) == ["optim.learning_rate"]


def test_config_is_frozen():
    config = load_config(CONFIGS[0])
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_help_and_settings_are_fast_and_import_no_torch():
    code = "import sys; from bimodal_cl.train import build_parser; build_parser().format_help()"
    code += f"; from bimodal_cl.config.yaml_files import load_config; load_config({str(CONFIGS[0])!r})"
    code += "; from bimodal_cl.losses import LOSSES; assert 'clip' in LOSSES"
    code += "; assert 'torch' not in sys.modules"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert time.perf_counter() - started < 5  # under 0.3 s on an idle machine; a torch import alone takes longer


def test_print_config_shows_the_resolved_values(capsys):
    assert train.main(["--config", str(CONFIGS[0]), "--optim.beta1", "0.8", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "beta1: 0.8" in printed and "weight_decay:" in printed


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main(["--version"])
    assert exit_.value.code == 0
    assert "0.1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ({"pretrained": "runs/first"}, None),
        ({"pretrained": "runs/first", "image_size": 64}, None),
        ({"pretrained": "runs/first", "embed_dim": 64}, r"missing: \['vision', 'text', 'image_size'\]"),
        ({"image_size": 64}, r"missing: \['embed_dim', 'vision', 'text'\]; or model.pretrained alone"),
    ],
)
def test_weights_alone_may_say_what_the_model_is(model, missing):
    if missing is None:
        assert Model(**model).pretrained == "runs/first"
    else:
        with pytest.raises(ValueError, match=missing):
            Model(**model)


def test_help_gives_each_losss_default_and_the_range():
    text = " ".join(build_parser().format_help().split())
    assert "weight of the new value in u; in (0, 1] (default: sogclr, isogclr: 0.8, rgcl_g: 0.2)" in text
    assert "temperature; in (0, inf) (default: clip, cyclip, rgcl_g: 0.07, siglip: 0.1, isogclr: 0.01)" in text

"""Unknown keys and flags are answered with ours: other trainers' names, wrong sections, misspellings."""

import pytest

from bimodal_cl.cli.synonyms import OTHER_VALUES
from bimodal_cl.config.keys import dotted_keys
from bimodal_cl.config.names import _IN_STEPS, _NO_KEY, _OTHER_NAMES, find_meant

FLAGS = """
--optim.lr                 --optim.learning_rate
--lr                       --optim.learning_rate
--train.lr                 --optim.learning_rate
--learning_rate            --optim.learning_rate
--train.learning_rate      --optim.learning_rate
--optimizer.lr             --optim.learning_rate
--optim.leraning_rate      --optim.learning_rate
--train.batch_size         --train.global_batch_size
--batch-size               --train.global_batch_size
--data.batch_size          --train.global_batch_size
--epochs                   --train.num_epochs
--train.epochs             --train.num_epochs
--model                    --model.name
--model.arch               --model.name
--model.model              --model.name
--data                     --data.train
--train-data               --data.train
--val-data                 --data.val
--imagenet-val             --data.zero_shot
--workers                  --data.num_workers
--data.workers             --data.num_workers
--to                       --output
--wd                       --optim.weight_decay
--optim.wd                 --optim.weight_decay
--warmup                   --optim.warmup_steps
--warmup_epochs            --optim.warmup_steps
--grad-clip-norm           --optim.max_grad_norm
--precision                --train.precision
--train.mixed_precision    --train.precision
--save-frequency           --checkpoint.every
--zeroshot-frequency       --train.evaluate_every
--name                     --output
--logs                     --output
--pretrained               --model.pretrained
--accum-freq               --train.accumulate_features
--loss                     --loss.name
--ita_type                 --loss.name
--gamma                    --loss.gamma
--sogclr_gamma             --loss.gamma
--rho_I                    --loss.rho
--rho_init                 --loss.rho
--eta_init                 --loss.eta
--tau_init                 --loss.tau_init
--loss.temperature         --loss.tau_init
--temp                     --loss.tau_init
--lr_tau                   --optim.temperature_learning_rate
--image_encoder            --model.vision.timm_model_name
--image-mean               --model.image_mean
--interpolation            --model.image_interpolation
--timm-checkpoint          --model.vision.timm_checkpoint_path
--loss.roh                 --loss.rho
--resum                    --resume
--model.vision.heads       --model.vision.head_width
--data.path                --data.train
--data.test                --data.val
--checkpoint.dir           --output
--report-to                --tracking.trackers
--wandb-project-name       --tracking.project
--grad-checkpointing       --train.grad_checkpointing
--torchcompile             --train.compile
--train.allow_tf32         --train.tf32
--ema                      --ema.decay
--train.ema_decay          --ema.decay
--optim.image.lr           --optim.image.learning_rate
--freeze-bn-stats          --optim.image.freeze_statistics
--optim.text.freeze_statistics  --optim.image.freeze_statistics
"""


@pytest.fixture
def write(write):
    """Write the minimal config with the loss ``clip``, which has few keys of its own."""
    return lambda **changes: write(**{"loss": {"name": "clip"}, **changes})


@pytest.mark.parametrize(("given", "meant"), [line.split() for line in FLAGS.strip().splitlines()])
def test_flags_name_the_flag_that_is_meant(given, meant, write, refusal):
    line = refusal("--config", write(), given, "1")
    assert f"unknown flag '{given}'; did you mean '{meant}'" in line


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("--local-loss", "the loss is always that of the global batch"),
        ("--gradient-accumulation-steps", "contrast each micro-batch with itself alone; train.accumulate_features"),
        ("--dataset-type", "manifest.json"),
        ("--wandb-notes", "metrics.jsonl"),
        ("--opt", "did you mean '--optim.name'?"),
        ("--checkpoint", "--resume latest, best or PATH"),
        ("--personalized_tau", "isogclr learns one for each"),
        ("--model.vision", "a section; its flags: --model.vision.timm_model_name"),
        ("--train.foo", "valid: accumulate_features, compile, device"),
        ("--optim", "a section; its flags: --optim.name, --optim.learning_rate"),
        ("--checkpoint.resume", "--resume latest, best or PATH"),
        ("--torchscript", "to save memory or time is not supported"),
        ("--train.channels_last", "images and convolutions are always channels-last"),
        ("--train.fsdp", "accelerate launch --use_fsdp --fsdp_version 2 shards the weights"),
        ("--lock-image", "did you mean '--optim.image.lock'?"),
        ("--lock-text-unlocked-layers", "did you mean '--optim.text.unlocked_groups'?"),
        ("--lock-image-freeze-bn-stats", "are always frozen, with their statistics"),
        ("--use-bn-sync", "batch norms see the images of their own process"),
        ("--epochs-cooldown", "did you mean '--optim.cooldown_steps' (in steps)?"),
        ("--label-smoothing", "it is not supported"),
        ("--unheard-of", "'--unheard-of'; --help lists all flags"),
    ],
)
def test_flags_without_a_key_say_why(given, why, write, refusal):
    assert why in refusal("--config", write(), given, "1")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optim": {"lr": 1}}, "optim.lr: unknown key; did you mean 'optim.learning_rate'?"),
        ({"train": {"learning_rate": 1}}, "train.learning_rate: unknown key; did you mean 'optim.learning_rate'?"),
        ({"train": {"batch_size": 1}}, "did you mean 'train.global_batch_size'?"),
        ({"lr": 1}, "lr: unknown key; did you mean 'optim.learning_rate'?"),
        ({"optimizer": {"lr": 1}}, "optimizer: unknown key; did you mean 'optim'?"),
        ({"loss": {"name": "clip", "temp": 1}}, "of loss 'clip'; did you mean 'loss.tau_init'?"),
        ({"loss": {"name": "sogclr", "temp": 1}}, "of loss 'sogclr'; did you mean 'loss.tau'?"),
        ({"loss": {"name": "macl", "temp": 1}}, "of loss 'macl'; did you mean 'loss.tau_base'?"),
        ({"loss": {"name": "clip", "rho": 1}}, "unknown key of loss 'clip', a key of isogclr, rgcl_g; valid: mask_rep"),
        ({"data": {"train": [{"path": "x"}]}}, "data.train.0.path: unknown key; did you mean 'data.train.folder'?"),
        ({"data": {"train": [{"foldr": "x"}]}}, "data.train.0.foldr: unknown key; did you mean 'folder'?"),
        ({"data": {"train": "x", "local_loss": 1}}, "unknown key: the loss is always that of the global batch"),
        ({"loss": "macl"}, "loss: should be a mapping of keys, such as loss.name: macl, got 'macl'"),
        ({"model": "ViT-B-32"}, "such as model.name: ViT-B-32"),
        ({"loss": {"name": "clip", "tile_size": "full"}}, "loss.tile_size: input should be a valid integer, unable"),
        (
            {"loss": {"name": "clip", "tile_size": 0}},
            "loss.tile_size: input should be greater than or equal to 1, or 'au",
        ),
        ({"seed": True}, "seed: should be a number, got True"),
        ({"optim": {"learning_rate": True}}, "optim.learning_rate: should be a number, got True"),
        ({"data": {"train": None}}, "data.train: should be a folder, or a list of {folder, repeat | weight}, got None"),
        ({"data": {"train": "x", "crop_scale": [0.5]}}, "data.crop_scale: should be [smallest, largest], such as [0.9"),
        ({"data": {"train": "x", "crop_scale": 0.5}}, "data.crop_scale: should be [smallest, largest], such as [0.9"),
        (
            {"model": {"image_mean": [0.5]}},
            "model.image_mean: should be three numbers, of red, green and blue, such as",
        ),
        (
            {"model": {"image_std": 0.5}},
            "model.image_std: should be three numbers, of red, green and blue, such as [0.",
        ),
        ({"model": {"image_std": [0.5, 0, 0.5]}}, "model.image_std.1: input should be greater than 0, got 0"),
        ({"model": {"image_resize_mode": "crop"}}, "model.image_resize_mode: input should be 'shortest', 'longest' or"),
        ({"model": {"vision": {"layers": 0}}}, "model.vision.layers: there must be at least one block, got 0"),
        ({"model": {"vision": {"layers": [1, 0, 1, 1]}}}, "model.vision.layers: there must be at least one block"),
        (
            {"model": {"vision": {"layers": [1, 2]}}},
            "model.vision.layers: should be four numbers of blocks for a ResNet",
        ),
        ({"model": {"text": {"context_length": 2}}}, "model.text.context_length: input should be greater than or equa"),
    ],
)
def test_files_name_the_key_that_is_meant(changes, expected, write, refusal):
    path = write(**changes)
    line = refusal("--config", path)
    assert line.startswith(f"error: {path}: ") and expected in line


@pytest.mark.parametrize(
    ("flag", "value", "meant"),
    [
        ("--train.precision", "fp32", "float32"),
        ("--train.precision", "bfloat16", "bf16"),
        ("--train.precision", "amp_bf16", "bf16"),
        ("--train.precision", "float16", "fp16"),
        ("--train.precision", "BF16", "bf16"),
        ("--loss.products", "bfloat16", "bf16"),
        ("--optim.schedule", "const", "constant"),
        ("--train.device", "cuda", "auto"),
        ("--loss.name", "iSogCLR", "isogclr"),
        ("--loss.name", "CLIP", "clip"),
        ("--loss.name", "infonce", "clip"),
        ("--loss.name", "fastclip-v3", "rgcl_g"),
    ],
)
def test_values_name_the_value_that_is_meant(flag, value, meant, write, refusal):
    line = refusal("--config", write(), flag, value)
    assert line.startswith(f"error: {flag}: ") and f"did you mean '{meant}'?" in line


def test_an_argument_without_dashes_is_answered_with_the_flag(write, refusal):
    path = write()
    line = refusal("--config", path, "train.num_epochs=3")
    assert "unexpected argument 'train.num_epochs'; did you mean '--train.num_epochs'?" in line
    assert "did you mean '--optim.learning_rate'?" in refusal("--config", path, "lr=1e-4")


def test_a_count_of_epochs_is_told_from_one_of_steps(write, refusal):
    assert "'--checkpoint.every' (in steps)?" in refusal("--config", write(), "--save-frequency", "1")
    assert "'--optim.warmup_steps' (in steps)?" in refusal("--config", write(), "--warmup", "1")


def test_the_tables_name_what_exists():
    keys = {*dotted_keys(), "data.train.folder", "data.train.repeat", "data.train.weight"}
    assert set(_OTHER_NAMES) <= keys and set(_IN_STEPS) <= keys
    for names in (*_OTHER_NAMES.values(), *_NO_KEY, *OTHER_VALUES.values()):
        assert names == names.casefold().replace("-", "_") and len(set(names.split())) == len(names.split())


def test_a_key_is_no_other_keys_alias_in_its_own_section():
    for key in dotted_keys():
        section, _, name = key.rpartition(".")
        for other, names in _OTHER_NAMES.items():
            if other.rpartition(".")[0] == section and name in names.split():
                assert section == "loss"  # each loss has its own keys
    assert find_meant("optim.eta_min", dotted_keys()) == ["loss.eta_min"]

"""Build a run's objects from its config; with ``build_model`` the only module that knows both config and objects."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState

from bimodal_cl.build_model import build_feature_evaluation, build_heads, build_model_of, open_features
from bimodal_cl.cli.progress import note
from bimodal_cl.config.checks import check_batch_norms, check_best, check_precision, check_run
from bimodal_cl.config.checks.launch import check_process_count
from bimodal_cl.config.checks.world import World
from bimodal_cl.config.schema import Config
from bimodal_cl.data import Manifest
from bimodal_cl.data.features.stream import open_feature_stream
from bimodal_cl.data.features.tables import FeatureTables
from bimodal_cl.data.labelled.open import open_labelled
from bimodal_cl.data.pipeline.stream import Stream, open_stream
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.data.storage.locations import is_pipe, is_remote
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from bimodal_cl.losses import ContrastiveLoss, build_loss
from bimodal_cl.models import DualEncoder
from bimodal_cl.optim import build_optimizer, compute_learning_rates, read_peaks
from bimodal_cl.preprocess import EvalTransform
from bimodal_cl.run_folder import RunFolder
from bimodal_cl.scoring.evaluation import Evaluation
from bimodal_cl.trainer import Trainer
from bimodal_cl.training.encoded_batch import find_batch_norms
from bimodal_cl.training.run_settings import RunSettings
from bimodal_cl.training.sharding import choose_spread, take_fsdp_settings
from bimodal_cl.training.speed.switches import apply_switches
from bimodal_cl.training.trackers import Trackers
from bimodal_cl.training.trained_parts import describe_trained, find_hidden, find_parts

_MIXED_PRECISION = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


def build_trainer(config: Config, folder: RunFolder, checkpoint: Path | None = None) -> Trainer:
    """Build everything a run needs.

    Args:
        config: the run.
        folder: where it writes.
        checkpoint: the checkpoint to continue from, which also holds the architecture: the weights that
            ``config.model`` names may be gone or changed by now. The state is loaded by :meth:`Trainer.resume`.

    Raises:
        UserError: data that do not fit their manifest, an unknown model, a batch that the ranks cannot share.
    """
    fsdp = take_fsdp_settings()
    accelerator = build_accelerator(config)
    mixture = build_mixture(config)
    settings = build_settings(config, mixture)
    check_run(config, replace(describe_world(config, accelerator, mixture, settings), fsdp=fsdp is not None))
    batch_size = config.train.global_batch_size // accelerator.num_processes
    torch.manual_seed(config.seed)
    features = open_features(config, mixture)
    if features is None:
        model = build_model_of(config, checkpoint, accelerator)
    else:
        model = build_heads(config, features, checkpoint)
    switches = config.train.model_dump(include={"compile", "grad_checkpointing", "patch_dropout", "tf32"})
    apply_switches(model, accelerator.device.type, **switches)
    check_batch_norms(len(find_batch_norms(model)), settings.accumulate_features, batch_size)
    loss = build_loss_of(config, mixture)
    evaluate = build_evaluation(config, model.transform) if features is None else build_feature_evaluation(config)
    check_best(config.checkpoint.best, evaluate.scores, averaged=settings.ema_evaluate)
    optimizer = build_optimizer_of(config, model, loss)
    optim = config.optim
    rates: dict[str, Any] = optim.model_dump(include={"learning_rate", "temperature_learning_rate"})
    schedule = optim.model_dump(
        include={"min_learning_rate", "warmup_steps", "schedule", "cooldown_steps", "cooldown_power"}
    )
    peaks = read_peaks(optimizer)
    return Trainer(
        accelerator=accelerator,
        model=model,
        loss=loss,
        optimizer=optimizer,
        open_stream=partial(open_training_stream, config, mixture, accelerator, batch_size, model, settings, features),
        learning_rates_at=partial(
            compute_learning_rates, num_steps=settings.num_steps, peaks=peaks, **rates, **schedule
        ),
        evaluate=evaluate,
        settings=settings,
        folder=folder,
        trackers=build_trackers(config, folder, accelerator),
        identity=build_identity(config, mixture, features),
        spread=choose_spread(fsdp, accelerator.num_processes, model),
    )


def build_mixture(config: Config) -> Mixture:
    """Load the training data's manifests.

    Raises:
        UserError: a manifest is missing, or does not fit its shards.
    """
    sets = config.data.train
    weights = [one.weight for one in sets if one.weight is not None]
    repeats = [one.repeat if one.repeat is not None else 1.0 for one in sets]
    manifests = [Manifest.load(one.folder) for one in sets]
    return Mixture(manifests, weights=weights) if weights else Mixture(manifests, repeats)


def build_storage(config: Config) -> Storage:
    """Build the access to remote shards, with their cache."""
    data = config.data
    cache_dir = None if data.cache_dir is None else Path(data.cache_dir)
    return Storage(cache_dir, cache_bytes=round(data.cache_gb * 2**30), allow_pipe=data.allow_pipe)


def build_accelerator(config: Config) -> Accelerator:
    """Build the accelerator: device, precision, data parallelism.

    Raises:
        UserError: the precision is not available on this device, or the processes cannot connect to one another.
    """
    on_cpu = config.train.device == "cpu"
    timeout = timedelta(seconds=config.train.timeout_seconds)
    state = PartialState(cpu=on_cpu, timeout=timeout)
    check_process_count(state.num_processes, os.environ)
    check_precision(config.train.precision, state.device.type)
    try:
        return Accelerator(cpu=on_cpu, mixed_precision=_MIXED_PRECISION[config.train.precision])
    except ValueError as error:
        raise UserError(f"train.precision={config.train.precision}: {error}") from None


def describe_world(config: Config, accelerator: Accelerator, mixture: Mixture, settings: RunSettings) -> World:
    """Collect the facts that the config is checked against."""
    manifests = [*mixture.manifests, *([Manifest.load(config.data.val)] if config.data.val is not None else [])]
    shards = [shard.name for manifest in manifests for shard in manifest.shards]
    return World(
        device=accelerator.device.type,
        num_processes=accelerator.num_processes,
        num_local_processes=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        num_steps=settings.num_steps,
        num_remote_shards=sum(map(is_remote, shards)),
        num_pipe_shards=sum(map(is_pipe, shards)),
    )


def build_loss_of(config: Config, mixture: Mixture) -> ContrastiveLoss:
    """Build the loss with tables as large as the data set.

    Raises:
        UserError: hyperparameters that do not go together.
    """
    hyperparameters = config.loss.model_dump(mode="json")
    try:
        with warnings.catch_warnings(record=True) as caught:
            loss = build_loss(num_images=mixture.num_images, num_texts=mixture.num_texts, **hyperparameters)
    except ValueError as error:
        raise UserError(f"loss: {error}") from None
    for warning in caught:
        warnings.warn(f"loss: {warning.message}", stacklevel=2)
    return loss


def build_optimizer_of(config: Config, model: DualEncoder, loss: ContrastiveLoss) -> torch.optim.Optimizer:
    """Build the optimizer over the parameters of model and loss.

    Raises:
        UserError: a learning rate of something that is not trained.
    """
    optim = config.optim
    if optim.temperature_learning_rate is not None and not list(loss.parameters()):
        raise UserError(
            f"optim.temperature_learning_rate has no effect: loss '{config.loss.name}' learns nothing by the optimizer"
        )
    towers = {"image": optim.image, "text": optim.text}
    parts = find_parts(
        model,
        learning_rate=optim.learning_rate,
        tower_learning_rates={name: tower.learning_rate for name, tower in towers.items()},
        layer_decays={name: tower.layer_decay for name, tower in towers.items()},
        heads_learning_rate=optim.heads_learning_rate,
    )
    own = {"name", "learning_rate", "temperature_learning_rate", "weight_decay", "beta1", "beta2", "eps", "momentum"}
    values = optim.model_dump(include=own)
    return build_optimizer(model, loss.parameters(), **values, parts=parts, hidden=find_hidden(model))


def build_settings(config: Config, mixture: Mixture) -> RunSettings:
    """Compute the run's numbers. An epoch draws each image once, or as a mixture says, and drops an incomplete batch.

    Raises:
        UserError: fewer images than one global batch.
    """
    train = config.train
    steps_per_epoch = mixture.rows_per_epoch // train.global_batch_size
    if steps_per_epoch == 0:
        raise UserError(
            f"{mixture}: {mixture.rows_per_epoch} images are fewer than one global batch "
            f"(train.global_batch_size={train.global_batch_size})"
        )
    num_steps = train.num_steps or (train.num_epochs or 0) * steps_per_epoch
    return RunSettings(
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        global_batch_size=train.global_batch_size,
        accumulate_features=train.accumulate_features,
        seed=config.seed,
        log_every=train.log_every,
        evaluate_every=train.evaluate_every or steps_per_epoch,
        checkpoint_every=config.checkpoint.every or steps_per_epoch,
        keep_last=config.checkpoint.keep_last,
        best=config.checkpoint.best,
        max_grad_norm=config.optim.max_grad_norm,
        non_finite_skipped=train.non_finite == "skip",
        max_non_finite=train.max_non_finite,
        write_errors_ignored=config.checkpoint.on_write_error == "continue",
        ema_decay=config.ema.decay,
        ema_warmup=config.ema.decay_warmup,
        ema_evaluate=config.ema.decay is not None and config.ema.evaluate,
    )


def build_trackers(config: Config, folder: RunFolder, accelerator: Accelerator) -> Trackers:
    """Build the run's trackers; they are opened when the training starts."""
    tracking = config.tracking
    return Trackers(
        tracking.trackers,
        project=tracking.project,
        run_name=tracking.name or folder.path.absolute().name,
        folder=folder,
        config=config.to_dict(),
        enabled=accelerator.is_main_process,
    )


def build_identity(config: Config, mixture: Mixture, features: FeatureTables | None) -> dict[str, Any]:
    """Collect what a resumed run must share with its checkpoint to see the same batches and own the same tables."""
    return {
        "seed": config.seed,
        "train.global_batch_size": config.train.global_batch_size,
        "data.num_images": mixture.num_images,
        "data.num_texts": mixture.num_texts,
        "data.rows_per_epoch": list(mixture.rows),
        "data.shards": mixture.digest,
        "data.shuffle_window": config.data.shuffle_window,
        "data.features": None if features is None else features.identity,
        "loss.name": config.loss.name,
        "model": config.model.model_dump(mode="json"),
        **describe_trained(**config.optim.model_dump(include={"name", "image", "text", "heads_learning_rate"})),
    }


def build_evaluation(config: Config, transform: EvalTransform) -> Evaluation:
    """Open the validation data, so that a mistake in it shows before training.

    Args:
        config: the run.
        transform: the model's own, for retrieval. Zero-shot scoring asks the model for it.
    """
    open_pairs = None
    if config.data.val is not None:
        val = Manifest.load(config.data.val)
        storage = build_storage(config)
        open_pairs = partial(
            open_stream,
            val,
            batch_size=128,
            image_size=transform.image_size,
            train=False,
            eval_transform=transform,
            max_bad_fraction=1.0,  # what cannot be used is left out, and the scores say how much
            storage=storage,
        )
    labelled = open_labelled(config.data.zero_shot) if config.data.zero_shot is not None else None
    if labelled is not None and PartialState().is_main_process:
        for line in labelled.notes:
            note(f"data.zero_shot: {line}")
    return Evaluation(open_pairs, labelled)


def open_training_stream(
    config: Config,
    mixture: Mixture,
    accelerator: Accelerator,
    batch_size: int,
    model: DualEncoder,
    settings: RunSettings,
    features: FeatureTables | None,
    epoch: int,
    start_step: int,
) -> Stream:
    """Open this rank's batches from a step to the end of the training."""
    order: dict[str, Any] = {
        "seed": config.seed,
        "epoch": epoch,
        "start_step": start_step,
        "rank": accelerator.process_index,
        "world_size": accelerator.num_processes,
        "num_epochs": -(-settings.num_steps // settings.steps_per_epoch) - epoch,
        "shuffle_window": config.data.shuffle_window,
        "max_bad_fraction": config.data.max_bad_fraction,
        "pin_memory": accelerator.device.type == "cuda",
    }
    if features is not None:
        return open_feature_stream(features, mixture, batch_size, **order)
    return open_stream(
        mixture,
        batch_size,
        model.image_size,
        **order,
        num_workers=config.data.num_workers,
        train=True,
        scale=config.data.crop_scale,
        flip=config.data.flip,
        interpolation=model.transform.interpolation,
        tokenize=model.tokenizer,
        storage=build_storage(config),
    )

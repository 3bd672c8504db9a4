"""Checks of a config on its own: each returns one line where a setting cannot work or has no effect, else None.

A loss checks its own hyperparameters, because it is also used without a config.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from bimodal_cl.config.schema import Config


def _batch_without_negatives(config: Config) -> str | None:
    if config.train.global_batch_size == 1:
        return "train.global_batch_size=1: a single pair has no negatives; use 2 or more"
    return None


def _learning_rate_that_rises(config: Config) -> str | None:
    optim = config.optim
    if optim.schedule != "constant" and optim.min_learning_rate > optim.learning_rate:
        return (
            f"optim.min_learning_rate={optim.min_learning_rate} exceeds optim.learning_rate={optim.learning_rate}: the "
            "learning rate would rise to it; lower it"
        )
    return None


def _cooldown_of_no_length(config: Config) -> str | None:
    if config.optim.schedule == "constant_cooldown" and config.optim.cooldown_steps is None:
        return (
            "optim.schedule=constant_cooldown needs optim.cooldown_steps, how many of the last steps the learning rate "
            "falls in; give it, or use optim.schedule=constant"
        )
    return None


def _heads_that_do_not_fit(config: Config) -> str | None:
    vision = config.model.vision
    if vision is not None and vision.width and vision.head_width and vision.width % vision.head_width:
        return (
            f"model.vision.head_width={vision.head_width} does not divide model.vision.width={vision.width}: heads of "
            "that width do not fill it"
        )
    return None


def _features_of_trained_towers(config: Config) -> str | None:
    """Features stand for locked towers, so that without the key, the same config trains the same part on pixels."""
    if config.data.features is None:
        return None
    for modality, tower in (("image", config.optim.image), ("text", config.optim.text)):
        if not tower.lock or tower.unlocked_groups:
            what = f"lock=false: set optim.{modality}.lock=true" if not tower.lock else "unlocked_groups: leave it out"
            return f"data.features: the {modality} tower was locked when it was encoded, but optim.{modality}.{what}"
    return None


def _features_without_pixels(config: Config) -> str | None:
    if config.data.features is None:
        return None
    if config.data.zero_shot is not None:
        return (
            "data.zero_shot needs pixels, and data.features has none: leave it out, and score the run by "
            "`bimodal-eval zero-shot`"
        )
    if config.model.pretrained is not None:
        return "model.pretrained: data.features trains new heads, so it takes no weights of a whole model: leave it out"
    idle = [key for key in ("grad_checkpointing", "patch_dropout") if getattr(config.train, key)]
    return f"train.{idle[0]} has no effect with data.features, whose towers do not run: leave it out" if idle else None


def _idle_data_keys(config: Config) -> str | None:
    keys = ("num_workers", "cache_dir", "cache_gb")
    idle = [key for key in keys if config.data.is_set(key) and getattr(config.data, key)]
    if config.data.features is None or not idle:
        return None
    return f"data.{idle[0]} has no effect with data.features, which the process reads itself: leave it out"


def _idle_min_learning_rate(config: Config) -> str | None:
    optim = config.optim
    if optim.schedule == "constant" and optim.is_set("min_learning_rate"):
        return (
            f"optim.min_learning_rate={optim.min_learning_rate} has no effect with optim.schedule=constant: leave it "
            "out, or use cosine or constant_cooldown"
        )
    if optim.schedule != "constant" and optim.min_learning_rate == optim.learning_rate:
        return (
            f"optim.schedule={optim.schedule} has no effect: optim.min_learning_rate={optim.min_learning_rate} is the "
            "learning_rate; lower it, or set optim.schedule to constant"
        )
    return None


def _idle_cooldown(config: Config) -> str | None:
    optim = config.optim
    for key in ("cooldown_steps", "cooldown_power"):
        if optim.schedule != "constant_cooldown" and optim.is_set(key):
            return (
                f"optim.{key}={getattr(optim, key)} has no effect with optim.schedule={optim.schedule}: leave it out, "
                "or set optim.schedule to constant_cooldown"
            )
    return None


def _idle_optimizer_keys(config: Config) -> str | None:
    optim = config.optim
    if optim.name == "lion" and optim.is_set("eps"):
        return f"optim.eps={optim.eps} has no effect with optim.name=lion, which divides by nothing: leave it out"
    if optim.name != "muon" and optim.is_set("momentum"):
        return (
            f"optim.momentum={optim.momentum} has no effect with optim.name={optim.name}, whose momentum is "
            "optim.beta1: leave it out, or use muon"
        )
    if optim.name == "lamb" and optim.weight_decay == 0:
        return (
            "optim.name=lamb scales the updates of decayed weights alone: with optim.weight_decay=0 it is Adam; raise "
            "weight_decay, or use adamw"
        )
    return None


def _idle_tower_keys(config: Config) -> str | None:
    for modality, tower in (("image", config.optim.image), ("text", config.optim.text)):
        if tower.is_set("unlocked_groups") and not tower.lock:
            return (
                f"optim.{modality}.unlocked_groups={tower.unlocked_groups} has no effect without "
                f"optim.{modality}.lock=true: the whole tower is trained"
            )
        idle = [key for key in ("learning_rate", "layer_decay", "freeze_statistics") if tower.is_set(key)]
        if idle and tower.lock and tower.unlocked_groups == 0:
            value = str(getattr(tower, idle[0])).lower()
            return (
                f"optim.{modality}.{idle[0]}={value} has no effect: optim.{modality}.lock=true locks "
                f"the whole tower; leave it out, or train the last groups with optim.{modality}.unlocked_groups"
            )
    return None


def _evaluation_without_data(config: Config) -> str | None:
    if config.train.is_set("evaluate_every") and config.data.val is None and config.data.zero_shot is None:
        return (
            f"train.evaluate_every={config.train.evaluate_every} has no effect: there are no data to score on; give "
            "data.val or data.zero_shot, or leave it out"
        )
    return None


def _idle_limit_of_skipped_steps(config: Config) -> str | None:
    train = config.train
    if train.is_set("max_non_finite") and train.non_finite == "stop" and train.precision != "fp16":
        return (
            f"train.max_non_finite={train.max_non_finite} has no effect with train.non_finite=stop, which stops "
            "at the first: set train.non_finite=skip, or leave it out"
        )
    return None


def _average_that_is_off(config: Config) -> str | None:
    ema = config.ema
    for key in ("decay_warmup", "evaluate"):
        if ema.decay is None and ema.is_set(key):
            value = str(getattr(ema, key)).lower()
            return f"ema.{key}={value} has no effect without ema.decay: give it, such as 0.999, or leave ema out"
    return None


def _cache_of_no_size(config: Config) -> str | None:
    if config.data.cache_gb == 0 and config.data.is_set("cache_dir"):
        return (
            f"data.cache_dir={config.data.cache_dir} has no effect with data.cache_gb=0, which keeps nothing: raise "
            "cache_gb, or leave cache_dir out"
        )
    return None


def _weights_that_are_replaced(config: Config) -> str | None:
    model = config.model
    if model.pretrained is None:
        return None
    for part, section, key in (
        ("vision", model.vision, "timm_model_pretrained"),
        ("text", model.text, "hf_model_pretrained"),
    ):
        if section is not None and section.is_set(key) and getattr(section, key):
            return (
                f"model.{part}.{key}=true has no effect: model.pretrained={model.pretrained} replaces those weights; "
                "leave one of them out"
            )
    return None


def _order_of_the_shards(config: Config) -> str | None:
    if config.data.shuffle_window == 1:
        return (
            "data.shuffle_window=1: samples keep their order within a shard, epoch after epoch; raise it unless they "
            "were shuffled when they were written"
        )
    return None


def _weight_of_the_only_set(config: Config) -> str | None:
    if len(config.data.train) == 1 and config.data.train[0].weight is not None:
        return (
            f"data.train: weight={config.data.train[0].weight} has no effect on the only data set: leave it out, or "
            "set its repeat"
        )
    return None


def _tile_larger_than_all(config: Config) -> str | None:
    size, batch = config.loss.tile_size, config.train.global_batch_size
    if isinstance(size, int) and size > batch:
        return (
            f"loss.tile_size={size} is more than the global batch of {batch}: there is a single tile, computed twice; "
            "use auto, null or a smaller one"
        )
    return None


def _tracker_not_installed(config: Config) -> str | None:
    for name in config.tracking.trackers:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # no origin: a folder of that name, such as the logs of W&B
            return (
                f"tracking.trackers: {name} needs the package '{name}', which is not installed: pip install "
                f"'bimodal_cl[{name}]'"
            )
    return None


def _name_without_tracker(config: Config) -> str | None:
    tracking = config.tracking
    named = [f"tracking.{key}={getattr(tracking, key)}" for key in ("project", "name") if tracking.is_set(key)]
    if named and not set(tracking.trackers) - {"tensorboard"}:
        why = "tensorboard shows the run's folder" if tracking.trackers else "tracking.trackers is empty"
        return f"{', '.join(named)}: no effect, because {why}; leave it out"
    return None


CONFIG_REFUSALS: tuple[Callable[[Config], str | None], ...] = (
    _batch_without_negatives,
    _learning_rate_that_rises,
    _cooldown_of_no_length,
    _heads_that_do_not_fit,
    _features_of_trained_towers,
    _features_without_pixels,
    _tracker_not_installed,
)
CONFIG_WARNINGS: tuple[Callable[[Config], str | None], ...] = (
    _idle_data_keys,
    _idle_min_learning_rate,
    _idle_cooldown,
    _idle_optimizer_keys,
    _idle_tower_keys,
    _evaluation_without_data,
    _idle_limit_of_skipped_steps,
    _average_that_is_off,
    _cache_of_no_size,
    _weights_that_are_replaced,
    _order_of_the_shards,
    _weight_of_the_only_set,
    _tile_larger_than_all,
    _name_without_tracker,
)

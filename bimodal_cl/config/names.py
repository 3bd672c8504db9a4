"""Names that other programs and papers use for our keys, so that an error about an unknown key can name the right one.

The names are those of open_clip's trainer, of the papers' code (SogCLR, iSogCLR, FastCLIP, MACL) and of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bimodal_cl.errors import nearest

# key: its other names, without section, in lower case with "_"
_OTHER_NAMES = {
    "output": "to name logs log_dir out output_dir output_folder outdir out_dir save_dir run_dir run_name exp_name "
    "checkpoint_dir ckpt_dir",
    "seed": "random_seed manual_seed",
    "data.train": "train_data train_file train_image_root train_shards train_dir train_path training_data dataset data "
    "data_dir data_path dataset_path shards folder root webdataset cc3m_ann_path cc3m_img_root",
    "data.train.folder": "path dir directory url shards root name location train",
    "data.train.repeat": "repeats times epochs upsampling upsampling_factor",
    "data.train.weight": "ratio share prob probability proportion sampling_weight",
    "data.val": "val_data validation val_file val_dir val_path valid validation_data eval_data test_data test_file "
    "data_test val_coco_file val_flickr_file retrieval_data",
    "data.zero_shot": "imagenet_val imagenet_v2 imagenet zeroshot zero_shot_data zs_dataset zs_datafolder zs_data",
    "data.num_workers": "workers n_workers dataloader_workers loader_workers num_proc num_threads",
    "data.crop_scale": "scale aug_cfg random_resized_crop rrc_scale crop crop_min",
    "data.flip": "hflip horizontal_flip random_flip",
    "data.shuffle_window": "shuffle shuffle_buffer shuffle_size shuffle_buffer_size buffer_size shuffle_initial",
    "data.cache_gb": "cache_size cache_size_gb max_cache",
    "model.name": "model arch architecture model_name backbone",
    "model.pretrained": "weights init_model pretrained_model init_from init_checkpoint from_pretrained pretrained_path",
    "model.image_size": "image_res img_size imgsz input_size resolution force_image_size image_resolution",
    "model.image_mean": "mean pixel_mean norm_mean dataset_mean",
    "model.image_std": "std pixel_std norm_std dataset_std",
    "model.image_interpolation": "interpolation interpolation_mode train_interpolation resample",
    "model.image_resize_mode": "resize_mode crop_mode",
    "model.embed_dim": "embedding_dim dim feature_dim proj_dim projection_dim out_dim",
    "model.vision.timm_model_name": "image_encoder vision_model image_model timm_model vision_encoder visual_encoder",
    "model.vision.timm_model_pretrained": "pretrained_image timm_pretrained",
    "model.vision.timm_checkpoint_path": "timm_checkpoint image_checkpoint vision_checkpoint pretrained_image_path "
    "vision_pretrained",
    "model.vision.timm_checkpoint_by_order": "by_order remap in_order",
    "model.vision.patch_dropout": "force_patch_dropout",
    "model.vision.layers": "depth num_layers num_hidden_layers",
    "model.vision.width": "vision_width hidden_size",
    "model.vision.head_width": "heads num_heads num_attention_heads head_dim",
    "model.text.hf_model_name": "text_encoder text_model hf_model",
    "model.text.hf_tokenizer_name": "tokenizer tokenizer_name hf_tokenizer",
    "model.text.hf_pooler_type": "pooler_type pooler hf_pooler",
    "model.text.hf_proj_type": "proj_type",
    "model.text.context_length": "max_length max_words max_txt_l max_seq_length max_text_length force_context_length",
    "model.text.heads": "num_heads num_attention_heads",
    "loss.name": "loss ita_type loss_function loss_fn loss_type criterion objective method siglip fastclip",
    "loss.tau_init": "tau temp temperature init_temperature temperature_init t_init tau_base tau_0 tau0 logit_scale",
    "loss.tau": "tau_init temp temperature tau_base tau_0 tau0",
    "loss.tau_base": "tau_init tau temp temperature tau_0 tau0 temp0 t0",
    "loss.tau_min": "temp_min min_temp temperature_min min_tau tau_lower clamp_min logit_scale_max",
    "loss.tau_max": "temp_max max_temp temperature_max max_tau tau_upper",
    "loss.gamma": "sogclr_gamma gamma_u",
    "loss.gamma_schedule": "gamma_sched gamma_scheduler",
    "loss.rho": "rho_i rho_t rho_init kl_radius",
    "loss.beta": "beta_u beta_tau",
    "loss.eta": "eta_init eta_tau",
    "loss.eta_schedule": "eta_sched eta_scheduler",
    "loss.eta_decay": "eta_exp_gamma",
    "loss.alignment_base": "a0 a_0 base_alignment alignment_0",
    "loss.bias_init": "init_logit_bias logit_bias bias",
    "loss.lambda_in_modal": "cylambda1 lambda_inmodal inmodal_weight cyclip_in_modal",
    "loss.lambda_cross_modal": "cylambda2 lambda_crossmodal crossmodal_weight cyclip_cross_modal",
    "loss.tile_size": "chunk_size block_size tile chunks",
    "optim.learning_rate": "lr base_lr blr max_lr peak_lr learning_rate_init init_lr",
    "optim.min_learning_rate": "min_lr lr_min eta_min_lr end_lr final_lr lr_end lr_cooldown_end",
    "optim.schedule": "sched scheduler lr_scheduler lr_schedule lr_sched lr_scheduler_type decay_type",
    "optim.temperature_learning_rate": "lr_tau tau_lr temperature_lr lr_temperature temp_lr lr_temp",
    "optim.warmup_steps": "warmup warmup_epochs num_warmup_steps warmup_iters warmup_length warmup_ratio",
    "optim.weight_decay": "wd decay l2",
    "optim.beta1": "betas opt_betas adam_beta1",
    "optim.beta2": "betas opt_betas adam_beta2",
    "optim.eps": "epsilon opt_eps adam_eps adam_epsilon",
    "optim.image.lock": "lock_image freeze_vision freeze_image freeze_image_encoder freeze_visual lit freeze",
    "optim.image.unlocked_groups": "lock_image_unlocked_groups",
    "optim.image.freeze_statistics": "freeze_bn freeze_bn_stats freeze_batch_norm frozen_bn bn_eval norm_eval",
    "optim.image.learning_rate": "lr_image image_lr vision_lr lr_vision visual_lr image_encoder_lr lr_img",
    "optim.image.layer_decay": "layerwise_lr_decay layer_wise_lr_decay lr_decay_rate llrd ld visual_ld layer_lr_decay",
    "optim.text.lock": "lock_text freeze_text freeze_text_encoder freeze_bert",
    "optim.text.unlocked_groups": "lock_text_unlocked_layers",
    "optim.text.learning_rate": "lr_text text_lr text_encoder_lr lr_txt",
    "optim.text.layer_decay": "text_ld",
    "optim.heads_learning_rate": "lr_head head_lr heads_lr lr_heads proj_lr lr_proj projection_lr lr_projection",
    "optim.cooldown_steps": "epochs_cooldown cooldown cooldown_epochs lr_cooldown_steps decay_steps num_decay_steps",
    "optim.cooldown_power": "lr_cooldown_power",
    "optim.name": "opt optimizer optimizer_name optim_name",
    "optim.momentum": "opt_momentum muon_momentum",
    "optim.max_grad_norm": "grad_clip_norm clip_grad grad_clip max_norm clip_grad_norm gradient_clipping "
    "gradient_clip_val",
    "train.num_epochs": "epochs epoch num_train_epochs max_epochs n_epochs total_epochs",
    "train.num_steps": "steps max_steps num_train_steps total_steps num_iterations max_iterations iterations iters",
    "train.global_batch_size": "batch_size bs batch batchsize batch_size_train train_batch_size total_batch_size "
    "per_gpu_batch_size per_device_train_batch_size local_batch_size micro_batch_size",
    "train.accumulate_features": "accum_freq accumulate accumulation num_micro_batches grad_cache gradcache "
    "cache_chunks num_chunks",
    "train.precision": "amp mixed_precision use_amp dtype fp16 bf16 autocast",
    "train.compile": "torchcompile torch_compile use_compile compile_model",
    "train.grad_checkpointing": "gradient_checkpointing activation_checkpointing grad_checkpoint",
    "train.tf32": "allow_tf32 use_tf32 float32_matmul_precision matmul_precision",
    "train.patch_dropout": "mask_ratio",
    "train.non_finite": "skip_nan skip_nonfinite detect_nan terminate_on_nan check_nan",
    "train.timeout_seconds": "timeout ddp_timeout dist_timeout",
    "train.device": "gpu cuda cpu use_cpu accelerator",
    "train.log_every": "log_every_n_steps log_freq print_freq log_interval logging_steps log_steps log_frequency",
    "train.evaluate_every": "val_frequency zeroshot_frequency eval_frequency val_freq eval_freq eval_every "
    "eval_steps val_every val_interval evaluation_interval",
    "ema.decay": "ema model_ema use_ema ema_decay model_ema_decay ema_momentum ema_rate ema_beta",
    "ema.decay_warmup": "ema_warmup model_ema_warmup",
    "checkpoint.every": "save_frequency save_freq save_every save_interval save_steps checkpoint_every ckpt_every "
    "checkpoint_interval",
    "checkpoint.keep_last": "save_total_limit max_checkpoints keep save_most_recent delete_previous_checkpoint",
    "checkpoint.best": "monitor metric_for_best_model load_best_model_at_end save_best best_metric",
    "tracking.trackers": "report_to log_with wandb tensorboard tensorboard_path mlflow trackio use_wandb tracker "
    "logger loggers",
    "tracking.project": "wandb_project_name wandb_project project_name wandb_proj mlflow_experiment_name",
    "tracking.name": "wandb_run_name wandb_name",
}
_IN_STEPS = (
    "optim.warmup_steps",
    "optim.cooldown_steps",
    "train.evaluate_every",
    "checkpoint.every",
    "train.log_every",
)

# names without a key, and the reason
_NO_KEY = {
    "local_loss gather_with_grad": "the loss is always that of the global batch, with its whole gradient; leave it out",
    "accum_steps gradient_accumulation_steps grad_accum accumulation_steps accumulate_grad_batches": "there is no "
    "accumulation of gradients, which would contrast each micro-batch with itself alone; train.accumulate_features "
    "encodes train.global_batch_size in parts, under one loss",
    "dataset_type dataset_resampled train_num_samples val_num_samples train_data_upsampling_factors train_frac": "the "
    "manifest.json that bimodal-prep writes holds format and size; shares of several data sets: data.train",
    "csv_separator csv_img_key csv_caption_key": "bimodal-prep write csv makes shards of a table first",
    "world_size dist_url dist_backend distributed no_distributed local_rank rank num_processes num_gpus n_gpus gpus "
    "horovod no_set_device_rank ddp_static_graph nproc_per_node num_nodes nnodes": "accelerate launch "
    "starts the processes",
    "wandb_notes debug copy_codebase log_local": "a run writes metrics.jsonl, and bimodal-eval report shows it",
    "checkpoint ckpt resume_from resume_from_checkpoint ckpt_path checkpoint_path auto_resume resume": "--resume "
    "latest, best or PATH continues a run, and model.pretrained starts from weights",
    "learnable_temp personalized_tau temperature_scheme": "loss.name decides it: sogclr has a fixed temperature, clip "
    "and rgcl_g learn one, isogclr learns one for each image and text",
    "evaluate eval eval_only zs_only": "bimodal-eval scores a run",
    "torchscript trace use_bnb_linear": "this way to save memory or time is not supported; leave it out",
    "channels_last memory_format fused": "images and convolutions are always channels-last, and AdamW is always the "
    "fused one; leave it out",
    "fsdp use_fsdp fsdp2 full_shard": "accelerate launch --use_fsdp --fsdp_version 2 shards the weights",
    "lock_image_freeze_bn_stats lock_text_freeze_layer_norm": "the norms of what optim.image.lock and optim.text.lock "
    "lock are always frozen, with their statistics; leave it out, or set optim.image.freeze_statistics for those of "
    "trained layers",
    "force_quick_gelu quick_gelu force_custom_text": "it comes with the architecture and the weights: model.name, "
    "model.pretrained",
    "use_bn_sync sync_bn sync_batchnorm": "batch norms see the images of their own process; leave it out",
    "label_smoothing distill_model distill_pretrained coca_caption_loss_weight "
    "coca_contrastive_loss_weight loss_dist_impl dropout": "it is not supported; leave it out",
    "remote_sync remote_sync_frequency remote_sync_protocol": "a run stays in its folder, output; copy it from there",
}


def why_no_key(name: str) -> str | None:
    """Return why there is no key for a name that other programs have, or None for an unfamiliar name."""
    return next((why for names, why in _NO_KEY.items() if _plain(name) in names.split()), None)


def is_known(name: str, keys: Iterable[str]) -> bool:
    """Return whether a name is that of a key in any section, or another name of one."""
    name = _plain(name)
    return any(name in names.split() for names in _OTHER_NAMES.values()) or any(
        key.rpartition(".")[2] == name for key in keys
    )


def find_meant(given: str, keys: Sequence[str]) -> list[str]:
    """Return the keys that an unknown one may mean: none, one, or several that are alike.

    A near miss within its section comes first, then another name of a key (one in its section, if there is one), then
    the same name in another section, then what is only similar.

    Args:
        given: dotted, such as ``optim.lr`` or ``lr``.
        keys: all that exist, dotted.
    """
    section, _, name = given.rpartition(".")
    name = _plain(name)
    last_names = {key: key.rpartition(".")[2] for key in keys}
    siblings = {last: key for key, last in last_names.items() if key.rpartition(".")[0] == section}
    near = nearest(name, siblings, similarity=0.85)
    if near is not None:
        return [siblings[near]]
    called = {name, _plain(given.replace(".", "_"))}  # data.path: what others call data_path
    named = [key for key in keys if called.intersection(_OTHER_NAMES.get(key, "").split())]
    same = [key for key, last in last_names.items() if last == name and key != given]
    same = [key for key in same if key.count(".") == min(other.count(".") for other in same)]
    here = [siblings[last_names[key]] for key in named if last_names[key] in siblings]
    for found in (here, named if not same else [], same):
        if found:
            return found
    near = nearest(name, siblings)
    if near is not None:
        return [siblings[near]]
    near = nearest(name, (other for names in _OTHER_NAMES.values() for other in names.split()), similarity=0.85)
    if near is not None and near != name:
        return find_meant(f"{section}.{near}" if section else near, keys)
    near = nearest(name, last_names.values(), similarity=0.8)
    return [key for key, last in last_names.items() if last == near]


def in_steps(given: str, key: str) -> str:
    """Return the remark that a key counts steps, where others count epochs under the name that was given."""
    return " (in steps)" if key in _IN_STEPS and not key.endswith(given) and "step" not in given else ""


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")

"""Spread a model and its optimizer over the processes: a whole copy on each (DDP), or a part on each (FSDP2).

With FSDP2 (``torch.distributed.fsdp.fully_shard``) every process keeps ``1 / W`` of each parameter, of its gradient and
of its moments. The parameters of one block of a tower at a time are gathered to compute it, and gradients are averaged
and scattered as soon as a block's are known. The settings are those of ``accelerate launch`` (``--fsdp_...``), read by
Accelerate's own plugin, but the sharding is not left to ``Accelerator.prepare`` (1.15), which

- does not shard on the CPU, where it would train whole copies without a word;
- needs every parameter of the optimizer to belong to the model, and a learned temperature belongs to the loss;
- finds blocks by class names only, which the user would have to give for both towers;
- refuses scalars such as ``logit_scale``, and casts batch norms together with their block.

Checkpoints hold whole tensors in either case, so a run may be resumed with the other, or on other numbers of processes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bimodal_cl.checkpoint import optimizer_state, without_names
from bimodal_cl.errors import SettingRefused, did_you_mean


class DataParallel:
    """Every process holds the whole model and optimizer; gradients are averaged (DistributedDataParallel).

    Args:
        accelerator: device, precision and processes.
        encoder: the model; it is prepared in place.
        optimizer: over its parameters and the loss's.

    Attributes:
        model: what a step calls.
        optimizer: what a step calls; it wraps the given one, which is changed in place.
    """

    def __init__(self, accelerator: Accelerator, encoder: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._encoder, self._optimizer = encoder, optimizer
        self.model, self.optimizer = accelerator.prepare(encoder, optimizer)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer moves."""
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    @contextmanager
    def whole_encoder(self, to_run: bool = False) -> Iterator[Any]:
        """Give the main process the model with all its weights, to save it or to run it; call it on every rank.

        Args:
            to_run: it is needed on the device.
        """
        yield self._encoder

    def gather_optimizer(self) -> dict[str, Any]:
        """Return the optimizer's whole state on the main process, for a checkpoint; call it on every rank."""
        return optimizer_state(self._optimizer)


class ShardedDataParallel(DataParallel):
    """Every process holds a part of each parameter, gradient and moment (FSDP2).

    The main process also keeps the whole model on the CPU, from which it saves and evaluates.

    Args:
        accelerator: device, precision and processes; in data-parallel mode, see :func:`take_fsdp_settings`.
        encoder: the model, with whole weights that are equal on every rank; it is sharded in place.
        optimizer: over its parameters and the loss's; its state may have been loaded.
        settings: of the launcher.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        encoder: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: FullyShardedDataParallelPlugin,
    ) -> None:
        self._device, self._optimizer = accelerator.device, optimizer
        self._is_main = accelerator.is_main_process
        self._encoder = copy.deepcopy(encoder) if self._is_main else encoder
        before = dict(encoder.named_parameters())
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        _shard_modules(encoder, mesh, settings, low_precision=accelerator.mixed_precision == "bf16")
        after = dict(encoder.named_parameters())
        self._sharded = encoder
        self._groups = _shard_optimizer(optimizer, {before[name]: after[name] for name in before}, mesh)
        # What is left for Accelerate to do: autocast around the forward pass.
        self.model = accelerator.prepare_model(encoder, device_placement=False, evaluation_mode=True)
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)

    @contextmanager
    def whole_encoder(self, to_run: bool = False) -> Iterator[Any]:
        """Gather the weights into the main process's copy, one tensor at a time; other ranks get their part."""
        copies = self._encoder.state_dict()
        with torch.no_grad():
            for name, value in self._sharded.state_dict().items():
                whole = _whole(value)
                if self._is_main:
                    copies[name].copy_(whole)
        if to_run and self._is_main:
            self._encoder.to(self._device)
        yield self._encoder
        if to_run and self._is_main:
            self._encoder.to("cpu")

    def gather_optimizer(self) -> dict[str, Any]:
        """Gather the moments, one tensor at a time, in the format of a run without FSDP; empty but on the main rank."""
        state: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        number = 0
        for group, parameters in self._groups:
            groups.append({**group, "params": list(range(number, number + len(parameters)))})
            for parameter in parameters:
                for name, value in self._optimizer.state.get(parameter, {}).items():
                    whole = _whole(value)
                    if self._is_main:
                        state.setdefault(number, {})[name] = whole.cpu() if isinstance(whole, Tensor) else whole
                number += 1
        return {"state": state, "param_groups": without_names(groups)} if self._is_main else {}


def take_fsdp_settings() -> FullyShardedDataParallelPlugin | None:
    """Return the settings of FSDP if the launcher asked for it, and hide that from Accelerate and Transformers.

    Call it before an ``Accelerator`` is made: the Accelerator is then in plain data-parallel mode, and Transformers
    loads whole weights on every process instead of empty ones.
    """
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() not in ("true", "1", "yes"):
        return None
    return FullyShardedDataParallelPlugin()


def choose_spread(
    settings: FullyShardedDataParallelPlugin | None, num_processes: int, model: nn.Module
) -> Callable[[Accelerator, nn.Module, torch.optim.Optimizer], DataParallel]:
    """Return what spreads a model: sharded where that was asked for and there are several processes.

    Raises:
        SettingRefused: the settings name a class that the model does not have.
    """
    if settings is None or num_processes == 1:
        return DataParallel
    find_units(model, settings)
    return partial(ShardedDataParallel, settings=settings)


def clip_gradients(accelerator: Accelerator, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a norm, over all parameters and all their parts; return their norm before, 0-d."""
    norm: Tensor = accelerator.clip_grad_norm_(parameters, max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of all towers: transformer blocks, residual blocks of convolutions.

    A block is an element of a list or sequence whose elements are all of one class that has parts of its own, and that
    holds no such list itself: ``resblocks`` in open_clip, ``blocks`` or ``layer1`` in timm, ``layer`` in Transformers.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    repeated = [found for found in lists if _is_repeated(found)]
    inner = [
        found for found in repeated if not any(_is_repeated(part) for part in found.modules() if part is not found)
    ]
    blocks = [block for found in inner for block in found if next(block.parameters(), None) is not None]
    return list(dict.fromkeys(blocks))


def _is_repeated(found: nn.Module) -> bool:
    if not isinstance(found, nn.ModuleList | nn.Sequential):
        return False
    elements = list(found)
    return len({type(element) for element in elements}) == 1 and next(elements[0].children(), None) is not None


def find_units(model: nn.Module, settings: FullyShardedDataParallelPlugin) -> list[nn.Module]:
    """Return the modules that are gathered one by one: those of the classes that the user names, else the blocks.

    Raises:
        SettingRefused: no module of a class.
    """
    names = settings.transformer_cls_names_to_wrap
    if not names:
        return find_blocks(model)
    known = {type(module).__name__ for module in model.modules() if module is not model}
    for name in names:
        if name not in known:
            near = did_you_mean(name, sorted(known))
            raise SettingRefused(
                f"accelerate launch: fsdp_transformer_layer_cls_to_wrap: no module of class '{name}'{near}"
            )
    return [module for module in model.modules() if type(module).__name__ in names]


def _shard_modules(
    model: nn.Module, mesh: DeviceMesh, settings: FullyShardedDataParallelPlugin, low_precision: bool
) -> None:
    """Shard blocks, then what is left of each tower, then the model, in place, and move it to the mesh's device."""
    device = torch.device(mesh.device_type)
    alone = {parameter for parameter in model.parameters() if parameter.ndim == 0}  # FSDP takes no scalars
    for parameter in model.parameters():
        parameter.data = parameter.data.to(device) if parameter in alone else parameter.data.contiguous()
    for parameter in alone:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_average_gradient)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    full = MixedPrecisionPolicy()
    options = {"mesh": mesh, "reshard_after_forward": settings.reshard_after_forward, "ignored_params": alone}
    norms: list[nn.Module] = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.affine]
    if low_precision and norms:  # their statistics are float32, and so must be their weights
        fully_shard(norms, **{**options, "reshard_after_forward": False}, mp_policy=full)
    towers = [tower for tower in model.children() if next(tower.parameters(), None) is not None]
    for unit in dict.fromkeys([*reversed(find_units(model, settings)), *towers, model]):
        fully_shard(unit, **options, mp_policy=policy if low_precision else full)


def _average_gradient(parameter: Tensor) -> None:
    """Average a gradient that FSDP does not know; after a second backward pass, what was averaged stays."""
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


def _shard_optimizer(
    optimizer: torch.optim.Optimizer, sharded: dict[nn.Parameter, nn.Parameter], mesh: DeviceMesh
) -> list[tuple[dict[str, Any], list[nn.Parameter]]]:
    """Replace an optimizer's parameters and moments by their parts.

    No optimizer of PyTorch steps through sharded and whole tensors together, so the whole ones of a group (the loss's)
    become a group of their own, with the same name and settings.

    Returns:
        The groups as they were, each with its parameters in order.
    """
    as_before = []
    for group in list(optimizer.param_groups):
        parameters = []
        for old in group["params"]:
            new = sharded.get(old, old)
            on_device = group.get("fused") or group.get("capturable")
            state = optimizer.state.pop(old, {})
            if state:
                optimizer.state[new] = {
                    name: _part(value, old, new, mesh, bool(on_device)) for name, value in state.items()
                }
            parameters.append(new)
        as_before.append((group, parameters))
        group["params"] = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
        whole = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        if not group["params"]:
            group["params"] = whole
        elif whole:
            optimizer.param_groups.append({**group, "params": whole})
    return as_before


def _part(value: Any, old: Tensor, new: Tensor, mesh: DeviceMesh, counts_on_device: bool) -> Any:
    """Return this process's part of a value of the optimizer's state; counts and other values stay whole."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim == 0 and new.ndim > 0:
        return value.to(new.device) if counts_on_device else value
    if isinstance(new, DTensor) and value.shape == old.shape:
        return distribute_tensor(value.to(new.device).contiguous(), mesh, [Shard(0)], src_data_rank=None)
    return value.to(new.device)


def _whole(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value

"""Lock a pretrained tower, or all of it but its last layers (LiT: Zhai et al., CVPR 2022, arXiv 2111.07991).

A locked parameter is not trained. A module whose parameters are all locked also runs as in evaluation: its batch norms
use their running statistics and do not move them, and its dropout, stochastic depth and patch dropout are off. As no
locked layer comes after a trained one, autograd records no graph for the locked part and keeps none of its activations.

Batch norms of a tower that is trained may keep their statistics as well: those of a small batch are noisy, and the
pretrained layers after them have learned from better ones.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bimodal_cl.errors import UserError
from bimodal_cl.models.towers.layers import TowerLayers


def lock_tower(tower: nn.Module, layers: TowerLayers, unlocked_groups: int, where: str) -> list[nn.Module]:
    """Lock all groups of a tower but the last ones.

    Args:
        tower: its locked parameters get ``requires_grad=False``.
        layers: of the tower. Its groups are its layers; a head that did not come with the tower's weights is none of
            them, and stays trained.
        unlocked_groups: how many of the last groups stay trained, from 0 to one less than all.
        where: begins the message of an error, such as ``"optim.image"``.

    Returns:
        The modules that must stay in evaluation mode.

    Raises:
        UserError: no group would be locked.
    """
    if unlocked_groups >= layers.num_groups:
        raise UserError(
            f"{where}.unlocked_groups={unlocked_groups} leaves nothing locked: the tower has {layers.num_groups} "
            f"groups; use at most {layers.num_groups - 1}, or drop {where}.lock"
        )
    first_unlocked = layers.num_groups - unlocked_groups
    locked = {name: parameter for name, parameter in tower.named_parameters() if layers.numbers[name] < first_unlocked}
    for parameter in locked.values():
        parameter.requires_grad_(False)
    ids = {id(parameter) for parameter in locked.values()}
    whole: list[nn.Module] = []
    _collect_locked(tower, ids, whole)
    return whole


def require_batch_norms(tower: nn.Module) -> list[nn.Module]:
    """Return the batch norms of a tower.

    Raises:
        UserError: it has none.
    """
    norms: list[nn.Module] = [module for module in tower.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise UserError(
            "optim.image.freeze_statistics=true has no effect: the image tower has no batch norms; leave it out"
        )
    return norms


def _collect_locked(module: nn.Module, locked: set[int], found: list[nn.Module]) -> None:
    """Append the outermost modules that have parameters, all of them locked."""
    parameters = [id(parameter) for parameter in module.parameters()]
    if parameters and locked.issuperset(parameters):
        found.append(module)
    elif parameters:
        for child in module.children():
            _collect_locked(child, locked, found)

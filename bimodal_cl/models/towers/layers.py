"""Number the layers of a tower: its embeddings, its blocks one by one, and its head, the projection.

Layer 0 is what reads the input: patch, token and position embeddings, or a ResNet's stem. Layers 1 to n are the
blocks; what comes between the last block and the head, such as a final norm, belongs to the last block. Layer n + 1 is
the head:

==========================  =====================================================  ==================
tower                       blocks                                                 head
==========================  =====================================================  ==================
open_clip ViT               ``transformer.resblocks``                              ``proj``
open_clip ResNet            the bottlenecks of ``layer1`` to ``layer4``            ``attnpool``
open_clip text transformer  ``transformer.resblocks``                              ``text_projection``
timm                        timm's own groups of its ``trunk``                     ``head``
Hugging Face text model     the blocks of its ``transformer``                      ``proj``
SigLIP                      ``transformer.encoder.layers``                         ``transformer.head``
==========================  =====================================================  ==================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from bimodal_cl.models.towers.huggingface_text import HuggingFaceTextTower
from bimodal_cl.models.towers.siglip import SiglipImageTower, SiglipTextTower


@dataclass(frozen=True)
class TowerLayers:
    """The layers of a tower.

    Attributes:
        numbers: the layer of every parameter, by its name in the tower: 0 to ``head``.
        head: the number of the last layer, the head, which may have no parameters.
        own_head: whether the head came with the tower's weights, and is locked with them; a head that was put onto a
            pretrained trunk (timm, Hugging Face) is never locked.
    """

    numbers: dict[str, int]
    head: int
    own_head: bool

    @property
    def num_groups(self) -> int:
        """How many groups a lock counts: all layers, without a head that is never locked."""
        return self.head + 1 if self.own_head else self.head


def number_layers(tower: nn.Module) -> TowerLayers:
    """Return the layers of a tower that :mod:`bimodal_cl.models.towers.build` has built."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel

    if isinstance(tower, TimmModel):
        return _number_timm(tower)
    if isinstance(tower, HuggingFaceTextTower):
        return _number_blocks(tower, _find_blocks(tower, "transformer"), ("proj",), own_head=False)
    if isinstance(tower, SiglipImageTower | SiglipTextTower):
        return _number_blocks(tower, _find_blocks(tower, "transformer"), ("transformer.head",), own_head=True)
    if isinstance(tower, ModifiedResNet):
        stages = [f"layer{stage}" for stage in range(1, 5)]
        blocks = [f"{stage}.{place}" for stage in stages for place, _ in tower.get_submodule(stage).named_children()]
        return _number_blocks(tower, blocks, ("attnpool",), own_head=True)
    return _number_blocks(tower, _find_blocks(tower, "transformer"), ("proj", "text_projection"), own_head=True)


def _number_timm(tower: nn.Module) -> TowerLayers:
    """Use timm's groups; the trunk's classifier, where it is the projection, is the head."""
    from timm.models import group_parameters

    trunk = tower.get_submodule("trunk")
    groups = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    classifier = {id(parameter) for parameter in _classifier_parameters(trunk)}
    names = {name for name, parameter in trunk.named_parameters() if id(parameter) not in classifier}
    order = {group: place for place, group in enumerate(sorted({groups[name] for name in names}))}
    numbers = {f"trunk.{name}": order[groups[name]] for name in names}
    return TowerLayers(
        {name: numbers.get(name, len(order)) for name, _ in tower.named_parameters()}, len(order), own_head=False
    )


def _classifier_parameters(trunk: nn.Module) -> list[nn.Parameter]:
    classifier = trunk.get_classifier() if hasattr(trunk, "get_classifier") else None  # type: ignore[operator]
    return list(classifier.parameters()) if isinstance(classifier, nn.Module) else []


def _find_blocks(tower: nn.Module, inside: str) -> list[str]:
    """Return the names of a transformer's blocks: the members of its longest list of modules that is in no other list.

    A model without such a list counts as a single block.
    """
    lists: dict[str, nn.ModuleList] = {}
    for name, module in tower.get_submodule(inside).named_modules(prefix=inside):
        if isinstance(module, nn.ModuleList) and not name.startswith(tuple(f"{outer}." for outer in lists)):
            lists[name] = module
    if not lists:
        return [inside]
    longest = max(lists, key=lambda name: len(lists[name]))  # the first of several
    return [f"{longest}.{place}" for place, _ in lists[longest].named_children()]


def _number_blocks(tower: nn.Module, blocks: Sequence[str], heads: Sequence[str], own_head: bool) -> TowerLayers:
    embeddings = {
        f"{name}.{own}"
        for name, module in tower.named_modules()
        if isinstance(module, nn.Embedding)
        for own, _ in module.named_parameters(recurse=False)
    }
    numbers: dict[str, int] = {}
    reached = 0
    for name, _ in tower.named_parameters():
        block = next((place for place, block in enumerate(blocks, start=1) if name.startswith(f"{block}.")), None)
        if name.split(".")[0] in heads or name.startswith(tuple(f"{head}." for head in heads)):
            numbers[name] = len(blocks) + 1
        elif block is not None:
            numbers[name] = reached = block
        elif name in embeddings or not reached:
            numbers[name] = 0
        else:
            numbers[name] = len(blocks)
    return TowerLayers(numbers, len(blocks) + 1, own_head)

"""Run other projects' losses from clones of their repositories; no code of theirs is part of this project.

A peer is found by one file in its folder. That file is loaded by itself, without its package, so that a loss can be
measured without the rest of its project's dependencies. What a peer's own training loop does around its loss, and is
needed for a step, is done here as that loop does it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from bimodal_cl.errors import UserError
from tests.benchmarks.loss_cases import ETA, GAMMA, RHO, TAU, Case, Inputs, Step

CHUNK_SIZE = 1024  # of the chunked sigmoid loss


@dataclass(frozen=True)
class PeerLoss:
    """A loss of another project.

    Attributes:
        loss: the name of our loss that it stands against.
        name: as it is called there.
        build: makes its step from the loaded file; None where that version has no such loss.
    """

    loss: str
    name: str
    build: Callable[[ModuleType, Inputs], Step | None]


@dataclass(frozen=True)
class Peer:
    """A project with losses to compare with.

    Attributes:
        name: the project.
        flag: the option that gives its folder.
        file: the file in that folder that holds its losses.
        needs_cuda: whether it runs on CUDA only.
        losses: see :class:`PeerLoss`.
    """

    name: str
    flag: str
    file: str
    losses: tuple[PeerLoss, ...]
    needs_cuda: bool = False

    def find(self, folder: Path) -> Path:
        """Return its file.

        Raises:
            UserError: the folder has no such file.
        """
        if not (folder / self.file).is_file():
            raise UserError(f"{self.flag} {folder}: no {self.file} there, which {self.name} has")
        return folder / self.file


def find_installed_open_clip() -> Path | None:
    """Return the loss file of the installed open_clip without importing the package; None if there is none."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / "loss.py"
    return file if file.is_file() else None


def list_peer_cases(peer: Peer, file: Path) -> list[Case]:
    """Return a case for each loss of a peer."""
    return [Case(loss.loss, f"{peer.name} {loss.name}", peer_file=file) for loss in peer.losses]


def build_peer_step(case: Case, inputs: Inputs) -> Step | None:
    """Load a peer's file and build the step of one of its losses; None if its version has no such loss.

    Where there is no GPU, ``.cuda()`` is made the identity for the rest of the process: several peers call it whatever
    the device. Peers print while they are made; that is dropped.
    """
    if inputs.ids.device.type == "cpu":
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    builds = {f"{peer.name} {loss.name}": loss.build for peer in PEERS for loss in peer.losses}
    assert case.peer_file is not None
    with contextlib.redirect_stdout(io.StringIO()):
        return builds[case.name](load_file(case.peer_file), inputs)


def load_file(file: Path) -> ModuleType:
    """Import one Python file as a module of its own."""
    spec = importlib.util.spec_from_file_location("peer_" + "_".join(file.with_suffix("").parts[-4:]), file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _learned_scale(inputs: Inputs) -> Tensor:
    return torch.tensor(1 / TAU, device=inputs.ids.device).log().requires_grad_()


def _open_clip_clip(module: ModuleType, inputs: Inputs) -> Step:
    loss, log_scale = module.ClipLoss(local_loss=True, cache_labels=True), _learned_scale(inputs)
    return lambda image, text: loss(image, text, log_scale.exp())


def _open_clip_siglip(module: ModuleType, inputs: Inputs) -> Step:
    return _sigmoid_step(module.SigLipLoss(), inputs)


def _open_clip_siglip_chunked(module: ModuleType, inputs: Inputs) -> Step | None:
    if "chunk_size" not in inspect.signature(module.SigLipLoss).parameters:
        return None
    return _sigmoid_step(module.SigLipLoss(chunk_size=CHUNK_SIZE), inputs)


def _sigmoid_step(loss: torch.nn.Module, inputs: Inputs) -> Step:
    device = inputs.ids.device
    log_scale = torch.tensor(10.0, device=device).log().requires_grad_()
    bias = torch.tensor(-10.0, device=device, requires_grad=True)
    return lambda image, text: loss(image, text, log_scale.exp(), bias)


def _isogclr_sogclr(module: ModuleType, inputs: Inputs) -> Step:
    loss = module.SogCLR_Loss(N=len(inputs.ids), gamma=GAMMA, temperature=TAU, world_size=1)
    return lambda image, text: loss(image, text, inputs.ids, inputs.ids)


def _isogclr_dro(module: ModuleType, inputs: Inputs) -> Step:
    loss = module.SogCLR_DRO_Loss(
        N=len(inputs.ids),
        gamma=GAMMA,
        tau_init=TAU,
        rho_init=RHO,
        bsz=len(inputs.ids),
        eta_init=ETA,
        eta_sched="const",
        world_size=1,
    )
    return lambda image, text: loss(image, text, inputs.ids, inputs.ids, 0, 1)[0]


def _isogclr_cyclip(module: ModuleType, inputs: Inputs) -> Step:
    return module.CyCLIP_Loss(world_size=1, temperature=TAU)


def _libauc(module: ModuleType, inputs: Inputs, scheme: str) -> Step:
    loss = module.GCLoss_v2(
        N=len(inputs.ids), tau=TAU, tau_max=1.0, gamma=GAMMA, eta=ETA, rho=RHO, temperature_scheme=scheme
    )
    ids = inputs.ids.cpu()
    return lambda image, text: loss(image, text, ids)[0]


def _fast_clip(loss: torch.nn.Module, inputs: Inputs, log_scale: Tensor | None) -> Step:
    """Build one process's step as in its training loop, where gathered features have no gradient."""
    loss.adjust_hyperparams(1)
    ids, individual = inputs.ids.cpu(), log_scale is None

    def step(image: Tensor, text: Tensor) -> Tensor:
        scale = None if log_scale is None else log_scale.exp()
        features, remote = (image, text), (image.detach(), text.detach())
        loss1_image, loss1_text, sim_image, sim_text, gathered = loss.local(
            features=features, indices=(ids, ids), remote_features=remote, logit_scale=scale, offset=0
        )
        loss.set_params(ids, ids, *gathered)
        of_individuals = {"remote_bounds": gathered[4:6], "remote_tau": gathered[6:8]} if individual else {}
        return loss(
            features=features,
            remote_features=remote,
            remote_u=gathered[:2],
            loss1=(loss1_image, loss1_text),
            u=gathered[:2],
            sim=(sim_text.T, sim_image.T),
            logit_scale=scale,
            offset=0,
            **of_individuals,
        )

    return step


def _fast_clip_arguments(inputs: Inputs) -> dict:
    sizes = {"data_size": len(inputs.ids), "device": inputs.ids.device}
    return {**sizes, "gamma": GAMMA, "gamma_decay_epochs": 1, "rho": RHO}


def _fast_clip_v1(module: ModuleType, inputs: Inputs) -> Step:
    loss = module.FastCLIPLoss(**_fast_clip_arguments(inputs), multiply_tau=False)
    return _fast_clip(loss, inputs, _learned_scale(inputs).detach())


def _fast_clip_v2(module: ModuleType, inputs: Inputs) -> Step:
    loss = module.FastCLIPLossIndividual(**_fast_clip_arguments(inputs), tau_init=TAU, lr_tau=ETA)
    return _fast_clip(loss, inputs, None)


def _fast_clip_v3(module: ModuleType, inputs: Inputs) -> Step:
    return _fast_clip(module.FastCLIPLoss(**_fast_clip_arguments(inputs)), inputs, _learned_scale(inputs))


def _macl(module: ModuleType, inputs: Inputs) -> Step:
    """Build a step that splits the similarities into positives and negatives, as its function expects."""

    def one_direction(sims: Tensor) -> Tensor:
        size = len(sims)
        negatives = sims.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)
        return module.MACL(sims.diagonal()[:, None], negatives, TAU, 0.5, 0.0)

    def step(image: Tensor, text: Tensor) -> Tensor:
        sims = image @ text.T
        return (one_direction(sims) + one_direction(sims.T)) / 2

    return step


def _inf_cl(module: ModuleType, inputs: Inputs) -> Step:
    log_scale = _learned_scale(inputs)

    def step(image: Tensor, text: Tensor) -> Tensor:
        scale = log_scale.exp()
        image_to_text = module.cal_flash_loss(image, text, scale=scale)
        return (image_to_text.mean() + module.cal_flash_loss(text, image, scale=scale).mean()) / 2

    return step


OPEN_CLIP = Peer(
    "open_clip",
    "--open-clip-repo",
    "src/open_clip/loss.py",
    (
        PeerLoss("clip", "ClipLoss", _open_clip_clip),
        PeerLoss("siglip", "SigLipLoss", _open_clip_siglip),
        PeerLoss("siglip", f"SigLipLoss, chunks of {CHUNK_SIZE}", _open_clip_siglip_chunked),
    ),
)
PEERS = (
    OPEN_CLIP,
    Peer(
        "iSogCLR",
        "--isogclr-repo",
        "bimodal_exps/models/losses.py",
        (
            PeerLoss("sogclr", "SogCLR_Loss", _isogclr_sogclr),
            PeerLoss("isogclr", "SogCLR_DRO_Loss", _isogclr_dro),
            PeerLoss("cyclip", "CyCLIP_Loss", _isogclr_cyclip),
        ),
    ),
    Peer(
        "LibAUC",
        "--libauc-repo",
        "libauc/losses/contrastive.py",
        (
            PeerLoss("sogclr", "GCLoss_v2", partial(_libauc, scheme="global_constant")),
            PeerLoss("isogclr", "GCLoss_v2, individual", partial(_libauc, scheme="individual_learnable")),
            PeerLoss("rgcl_g", "GCLoss_v2, learned", partial(_libauc, scheme="global_learnable")),
        ),
    ),
    Peer(
        "FastCLIP",
        "--fastclip-repo",
        "src/fast_clip/loss.py",
        (
            PeerLoss("sogclr", "FastCLIPLoss v1", _fast_clip_v1),
            PeerLoss("isogclr", "FastCLIPLossIndividual v2", _fast_clip_v2),
            PeerLoss("rgcl_g", "FastCLIPLoss v3", _fast_clip_v3),
        ),
    ),
    Peer("MACL", "--macl-repo", "macl.py", (PeerLoss("macl", "MACL", _macl),)),
    Peer("Inf-CL", "--infcl-repo", "inf_cl/flash.py", (PeerLoss("clip", "cal_flash_loss", _inf_cl),), needs_cuda=True),
)

"""Write both towers as ONNX files, and run them with onnxruntime to compare features."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.export.file_names import IMAGE_FILE, TEXT_FILE
from bimodal_cl.models.export.parity import CAPTIONS, NotExported, require_equal, sample_pixels

TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_LARGE = 1 << 30  # bytes of weights that go into a file of their own: an ONNX file holds at most 2 GiB


class _UnitNorm(nn.Module):
    """A tower with unit-norm float32 output."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.tower(inputs).float(), dim=-1)


def require_onnx() -> None:
    """Check that the optional packages are installed.

    Raises:
        UserError: one is missing; the message says what to install.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--onnx needs the package {package}: pip install 'bimodal_cl[onnx]'")


def write_onnx(encoder: DualEncoder, folder: Path) -> None:
    """Write ``image.onnx`` (``pixels`` to ``image_features``) and ``text.onnx`` (``tokens`` to ``text_features``).

    ``pixels`` are float32 ``[batch, 3, image_size, image_size]``, normalised as by
    :meth:`~bimodal_cl.models.DualEncoder.preprocess`; ``tokens`` are int64 ``[batch, context_length]``. The features
    are unit-norm float32 ``[batch, dim]``, and the batch may have any size.

    Args:
        encoder: the model, in evaluation mode on the CPU.
        folder: where to write; it exists.

    Raises:
        NotExported: a tower cannot be converted, or its features differ by more than 1e-4; no file is left.
        UserError: as :func:`require_onnx`.
    """
    require_onnx()
    tokens = encoder.tokenize(CAPTIONS)
    try:
        _write(encoder.visual, "image", "pixels", sample_pixels(encoder), folder / IMAGE_FILE)
        _write(encoder.text, "text", "tokens", tokens, folder / TEXT_FILE)
    except BaseException:
        for path in [*folder.glob(f"{IMAGE_FILE}*"), *folder.glob(f"{TEXT_FILE}*")]:
            path.unlink()
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter says about its own internals."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def _write(tower: nn.Module, modality: str, input_name: str, example: Tensor, path: Path) -> None:
    import onnxruntime

    module = _UnitNorm(tower).eval()
    expected = module(example)
    large = sum(parameter.nbytes for parameter in tower.parameters()) > _LARGE
    try:
        with _quiet():
            torch.onnx.export(
                module,
                (example[:2],),
                path,
                input_names=[input_name],
                output_names=[f"{modality}_features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=large,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = [
            torch.from_numpy(session.run(None, {input_name: part.numpy()})[0])
            for part in (example[:1], example[1:])  # two sizes of the batch
        ]
    except Exception as error:
        raise NotExported(f"the {modality} tower cannot be converted ({one_line(error)})") from error
    require_equal(modality, torch.cat(found), expected, TOLERANCE)

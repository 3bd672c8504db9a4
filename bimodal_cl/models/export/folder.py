"""Write a dual encoder in every format that can hold it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.models.export.file_names import HUGGINGFACE_FOLDER
from bimodal_cl.models.export.huggingface_folder import write_huggingface
from bimodal_cl.models.export.onnx_files import write_onnx
from bimodal_cl.models.export.open_clip_folder import builtin_name, write_open_clip
from bimodal_cl.models.export.parity import NotExported


@dataclass
class Formats:
    """The formats of an exported folder.

    Attributes:
        open_clip: whether open_clip loads the folder. Where it does not, the folder has the format of our checkpoints.
        huggingface: the class of transformers that loads the sub-folder, or None.
        onnx: whether there are ONNX files.
        builtin: the name of open_clip's own config that is equal to the architecture, or None.
        remarks: why a format is missing and what another library does otherwise, one line each.
    """

    open_clip: bool = False
    huggingface: str | None = None
    onnx: bool = False
    builtin: str | None = None
    remarks: list[str] = field(default_factory=list)


def write_formats(encoder: DualEncoder, folder: Path, home: str, onnx: bool) -> Formats:
    """Write the model into an empty folder in every format that can hold it.

    Args:
        encoder: the model, in evaluation mode on the CPU.
        folder: where to write; it exists and is empty.
        home: where the folder will be; see :func:`~bimodal_cl.models.export.open_clip_folder.write_open_clip`.
        onnx: write ONNX files as well.

    Raises:
        NotExported: ONNX is asked for and is not possible.
        UserError: ONNX is asked for and a package is missing.
    """
    formats = Formats()
    try:
        formats.remarks += write_open_clip(encoder, folder, home)
        formats.open_clip, formats.builtin = True, builtin_name(encoder.architecture)
    except NotExported as error:
        formats.remarks.append(f"not for open_clip: {error}")
        shutil.rmtree(folder)
        encoder.save(folder)
    try:
        formats.remarks += write_huggingface(encoder, folder / HUGGINGFACE_FOLDER)
        formats.huggingface = "CLIPModel" if encoder.architecture.hf_vision_config is None else "SiglipModel"
    except NotExported as error:
        formats.remarks.append(f"not for transformers: {error}")
        shutil.rmtree(folder / HUGGINGFACE_FOLDER, ignore_errors=True)
    if onnx:
        try:
            write_onnx(encoder, folder)
        except NotExported as error:
            raise NotExported(f"--onnx: {error}; nothing is written") from error
        formats.onnx = True
    return formats

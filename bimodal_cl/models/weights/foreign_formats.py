"""Recognise files that are not PyTorch weights by their suffix and first bytes."""

from __future__ import annotations

from pathlib import Path

from bimodal_cl.errors import UserError

_WRONG_START = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights: fetch them with 'git lfs pull'"),
    (b"GGUF", "a GGUF file for llama.cpp, not a PyTorch model's weights: take the safetensors file of the same model"),
    (b"\x89HDF", "a TensorFlow (HDF5) file: take the model's safetensors or PyTorch file"),
    (b"<", "a web page, not the weights: download the file itself"),
)
_WRONG_ENDINGS = {
    ".onnx": "an ONNX graph, not weights that can be trained: take the model's safetensors or PyTorch file",
    ".gguf": "a GGUF file for llama.cpp, not a PyTorch model's weights: take the safetensors file of the same model",
    ".h5": "a TensorFlow (HDF5) file: take the model's safetensors or PyTorch file",
    ".msgpack": "a Flax file: take the model's safetensors or PyTorch file",
    ".tflite": "a TensorFlow Lite file: take the model's safetensors or PyTorch file",
}
FOREIGN_SUFFIXES = {".gguf": "GGUF", ".onnx": "ONNX", ".h5": "TensorFlow", ".msgpack": "Flax", ".tflite": "TensorFlow"}
COPY_AGAIN = "copy or download it again"


def refuse_foreign_format(path: Path) -> None:
    """Refuse a file that does not hold the weights of a PyTorch model.

    Raises:
        UserError: the file is empty, cannot be read, or has another format, which the message names.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not start:
        raise UserError(f"{path}: is empty (0 bytes): {COPY_AGAIN}")
    for magic, what in _WRONG_START:
        if start.lstrip().startswith(magic):
            raise UserError(f"{path}: is {what}")
    if path.suffix.lower() in _WRONG_ENDINGS:
        raise UserError(f"{path}: is {_WRONG_ENDINGS[path.suffix.lower()]}")

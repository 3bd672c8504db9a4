"""Names of what an exported folder holds besides open_clip's files."""

from __future__ import annotations

HUGGINGFACE_FOLDER = "huggingface"
IMAGE_FILE, TEXT_FILE = "image.onnx", "text.onnx"

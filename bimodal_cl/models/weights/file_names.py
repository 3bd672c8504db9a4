"""Names of the files that hold a model: our checkpoints', open_clip's and transformers'."""

from __future__ import annotations

# Our own checkpoints.
WEIGHTS_FILE, ARCHITECTURE_FILE, TOKENIZER_FOLDER = "model.safetensors", "model.json", "tokenizer"
EMA_FILE = "ema.safetensors"  # of the averaged weights, beside the weights, with the same names of tensors
HEADS_FILE = "heads.json"  # beside the heads of locked towers: where those are
OPEN_CLIP_CONFIG = "open_clip_config.json"
# In order of preference: safetensors first, as they hold tensors only.
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TRANSFORMERS_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
# A name with one of these suffixes is meant as a weights file, whether or not its format can be read.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy", ".onnx", ".gguf", ".h5", ".msgpack")
# big_vision's arrays, which open_clip reads.
NUMPY_SUFFIXES = (".npz", ".npy")
# Beside an export in open_clip's format: weights and config for `create_model(NAME, pretrained=FILE)`, which have the
# same stem, and the configuration of a Hugging Face text model.
OPEN_CLIP_STATE_DICT, OPEN_CLIP_MODEL_CONFIG, TEXT_CONFIG = "open_clip_model.pt", "open_clip_model.json", "config.json"

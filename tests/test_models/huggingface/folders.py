"""Small Hugging Face image-text models with their tokenizers, written without a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.test_models.small_models import END, write_tokenizer

SIDE = 32
SQUARE = {"height": SIDE, "width": SIDE}
WORDS = ["a", "red", "blue", "dog", "cat", "photo", "of", "the", "two", "&", "amp", ";", "horse"]
TOWER = {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 3}
# Odd margins, portrait and landscape, smaller than the model's square, and equal to it.
SIZES = ((144, 96), (97, 61), (61, 97), (20, 27), (300, 37), (32, 32))


def blocks(width: int, height: int) -> Image.Image:
    """Draw squares of random colours, so that every way to resize or crop the image gives different pixels."""
    rng = np.random.default_rng(width * 1000 + height)
    colours = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3))
    return Image.fromarray(np.kron(colours, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8))


def randomize(model: Any) -> Any:
    """Draw weights far from their initial values with a fixed seed; return the model in evaluation mode."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_clip(folder: Path, activation: str = "quick_gelu", **text: Any) -> Any:
    """Write a CLIPModel without tokenizer and preprocessing, by default for OpenAI's tokens; return it."""
    from transformers import CLIPConfig, CLIPModel

    openai = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "max_position_embeddings": 12}
    vision = {"image_size": SIDE, "patch_size": 8, "num_hidden_layers": 3, "layer_norm_eps": 1e-3}
    config = CLIPConfig(
        text_config={**TOWER, **openai, "hidden_act": activation, **text},
        vision_config={**TOWER, **vision, "hidden_act": activation},
        projection_dim=24,
    )
    model = randomize(CLIPModel(config))
    model.save_pretrained(folder)
    return model


def write_siglip(folder: Path, vocab_size: int, positions: int = 16, **vision: Any) -> Any:
    """Write a SiglipModel without tokenizer and preprocessing; return it."""
    from transformers import SiglipConfig, SiglipModel

    config = SiglipConfig(
        text_config={**TOWER, "vocab_size": vocab_size, "max_position_embeddings": positions},
        vision_config={**TOWER, "image_size": SIDE, "patch_size": 8, **vision},
    )
    model = randomize(SiglipModel(config))
    model.save_pretrained(folder)
    return model


def write_clip_tokenizer(folder: Path, **options: Any) -> Any:
    """Write OpenAI's tokenizer, with open_clip's copy of its vocabulary, in Hugging Face's format; return it."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    bpe = SimpleTokenizer()
    ours = ("<start_of_text>", "<end_of_text>")
    theirs = ("<|startoftext|>", "<|endoftext|>")
    vocabulary = {theirs[ours.index(piece)] if piece in ours else piece: i for piece, i in bpe.encoder.items()}
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, **{"model_max_length": 77, **options})
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_unigram(folder: Path, **options: Any) -> Any:
    """Write a tokenizer like SigLIP's: lower case, no punctuation, an end-of-text token, perhaps also the padding."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["</s>", "<unk>", "<pad>", "\u2581", *(f"\u2581{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i % 7 + 1)) for i, piece in enumerate(pieces)], unk_id=1))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[.,!?]"), "")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    options = {"pad_token": "</s>", "model_input_names": ["input_ids"], "model_max_length": 16, **options}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", **options)
    fast.save_pretrained(folder)
    return fast


def write_gemma(folder: Path) -> Any:
    """Write a tokenizer like SigLIP 2's: Gemma's byte-pair encoding in lower case."""
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, "\u2581", *"abcdefghijklmnopqrstuvwxyz", "do", "dog", "ca", "cat"]
    merges = [("d", "o"), ("do", "g"), ("c", "a"), ("ca", "t")]
    tokenizer = Siglip2Tokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_word_clip(folder: Path, activation: str = "quick_gelu", eos_token_id: int = END) -> Any:
    """Write a CLIPModel with the word tokenizer of ``small_models``; return it."""
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": eos_token_id}
    model = write_clip(folder, activation, vocab_size=9, **special)
    write_tokenizer(folder)
    return model


def pooled(output: Any) -> torch.Tensor:
    """Return unit-norm features; ``get_*_features`` returns a tensor before transformers 5, an object since."""
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)


@torch.no_grad()
def assert_same_image_features(model: Any, theirs: Any, processor: Any) -> None:
    """Assert that images of all sizes have the features that transformers computes."""
    for size in SIZES:
        image = blocks(*size)
        expected = pooled(theirs.get_image_features(**processor(images=image, return_tensors="pt")))
        ours = model.encode_image(model.preprocess(image)[None])
        assert torch.cosine_similarity(ours, expected).item() > 0.9999, size

"""Sizes of small models, and Hugging Face text models written without a hub."""

from __future__ import annotations

from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "a", "dog", "cat", "red", "blue", "[SEP]"]
END = WORDS.index("[SEP]")
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
TEXT = {"context_length": 12, "width": 64, "heads": 2, "layers": 1}
CAPTIONS = ["a dog", "a red cat a blue dog", "blue"]


def write_tokenizer(folder: Path, pad_token: str = "[PAD]") -> None:
    """Write a word tokenizer of nine words in Hugging Face's format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", END)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad_token, unk_token="[UNK]", cls_token="[CLS]", eos_token="[SEP]"
    ).save_pretrained(folder)


def text_folder(folder: Path, family: str) -> Path:
    """Write a randomly initialised text model with its tokenizer."""
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": END}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    options = {
        "bert": sizes,
        "roberta": sizes,
        "clip_text_model": sizes,
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "t5": t5,
        "mt5": t5,
        "albert": {**sizes, "embedding_size": 16},
    }[family]
    config = AutoConfig.for_model(family, vocab_size=len(WORDS), max_position_embeddings=40, **special, **options)
    AutoModel.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder

"""A tiny language model of our own making: a byte-level tokenizer with a ChatML template, and a Llama of two layers.
It knows nothing and costs nothing; every room's tests load it by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = "user assistant the a cat sat on mat good bad happy sad day night what is it yes no please thank you " * 4


def tiny_tokenizer(template: str | None = CHATML, **settings: Any) -> PreTrainedTokenizerFast:
    """Bytes and a few merges: any text comes back as it was."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([WORDS], trainer)
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **settings}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, chat_template=template, clean_up_tokenization_spaces=False, **settings
    )


def tiny_llama(vocabulary: int, seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    """Random weights, large enough that answers differ in probability."""
    config = LlamaConfig(
        **{
            "vocab_size": vocabulary,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": 2,
            "pad_token_id": 0,
            **settings,
        }
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    torch.random.set_rng_state(state)
    return model


def tiny_model(folder: Path, seed: int = 0, template: str | None = CHATML, **settings: Any) -> Path:
    """Saves both as `transformers` would, and gives the folder back. `settings` go to the model's config."""
    tokenizer = tiny_tokenizer(template)
    model = tiny_llama(len(tokenizer), seed, **settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

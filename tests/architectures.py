"""Tiny models of many architectures, from their configs, with weights large enough that every token matters. Windows are
shorter than what is scored, so that they are felt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as t
from transformers import PreTrainedModel

from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SIZE = len(TOKENIZER)
WINDOW = 6


def _made(model: Any, config: Any, **settings: Any) -> Callable[[], PreTrainedModel]:
    common = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return lambda: model(config(**{**common, **settings}))


EXPERTS = {"num_experts_per_tok": 2}
MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
CAPS = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}

SHARING: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _made(t.LlamaForCausalLM, t.LlamaConfig),
    "qwen2, a window in one layer": _made(
        t.Qwen2ForCausalLM, t.Qwen2Config, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": _made(t.Qwen3ForCausalLM, t.Qwen3Config, head_dim=8),
    "gemma2, caps and a window": _made(t.Gemma2ForCausalLM, t.Gemma2Config, head_dim=8, sliding_window=WINDOW, **CAPS),
    "gemma3, a window": _made(t.Gemma3ForCausalLM, t.Gemma3TextConfig, head_dim=8, sliding_window=WINDOW),
    "mistral, a window": _made(t.MistralForCausalLM, t.MistralConfig, sliding_window=WINDOW),
    "phi, a bias on the logits": _made(t.PhiForCausalLM, t.PhiConfig),
    "olmo": _made(t.OlmoForCausalLM, t.OlmoConfig),
    "gpt2, absolute positions": lambda: t.GPT2LMHeadModel(
        t.GPT2Config(
            vocab_size=SIZE,
            n_positions=256,
            n_embd=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=2,
        )
    ),
    "mixtral, experts": _made(t.MixtralForCausalLM, t.MixtralConfig, num_local_experts=4, **EXPERTS),
    "cohere, scaled logits": _made(t.CohereForCausalLM, t.CohereConfig, logit_scale=0.3),
    "granite, divided logits": _made(t.GraniteForCausalLM, t.GraniteConfig, logits_scaling=3.0),
}
"""Models whose prompts can be shared."""
PADDED: dict[str, Callable[[], PreTrainedModel]] = {
    "falcon_h1, recurrent beside its attention": _made(t.FalconH1ForCausalLM, t.FalconH1Config, mamba_n_groups=1, **MAMBA),
    "gpt_oss, attention sinks": _made(
        t.GptOssForCausalLM, t.GptOssConfig, head_dim=8, sliding_window=WINDOW, num_local_experts=4, **EXPERTS
    ),
    "bloom, attention of its own": lambda: t.BloomForCausalLM(
        t.BloomConfig(
            vocab_size=SIZE,
            hidden_size=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=2,
        )
    ),
}
"""Models whose responses are read one by one."""


def built(name: str, seed: int = 0) -> PreTrainedModel:
    """The model of this name; biases and norms are not left at 0 and 1."""
    torch.manual_seed(seed)
    model = {**SHARING, **PADDED}[name]()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))
    return model

"""Tiny diffusion models with random weights, built from the same classes as Stable Diffusion 1.5, XL and 3, FLUX, and a small model
of classes. They know nothing; they are shaped as the large ones are."""

from __future__ import annotations

import string
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

D: Any = diffusers
WIDTH = 32
LETTERS = string.ascii_lowercase + string.digits + ".,"
SPOKEN = 16
"""Tokens that the CLIPs read."""


def clip_tokenizer() -> Any:
    words = [*LETTERS, *(c + "</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=SPOKEN)


def clip(projecting: bool = False) -> Any:
    size = 2 * len(LETTERS) + 2
    config = CLIPTextConfig(
        vocab_size=size, hidden_size=WIDTH, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=SPOKEN, projection_dim=WIDTH, bos_token_id=size - 2, eos_token_id=size - 1,
        pad_token_id=size - 1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projecting else CLIPTextModel)(config).eval()


def t5() -> tuple[Any, Any]:
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), *((mark + c, -3.0) for mark in ("▁", "") for c in LETTERS)]
    config = T5Config(vocab_size=len(words), d_model=WIDTH, d_ff=37, d_kv=8, num_layers=2, num_heads=4)
    return T5Tokenizer(vocab=words, extra_ids=0), T5EncoderModel(config).eval()


def autoencoder(channels: int, shift: float | None = None) -> Any:
    return D.AutoencoderKL(
        block_out_channels=(8, 16), in_channels=3, out_channels=3, latent_channels=channels, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
        scaling_factor=0.5, shift_factor=shift,
    ).eval()  # fmt: skip


def unet(**more: Any) -> Any:
    return D.UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, **more,
    )  # fmt: skip


def schedule(predicts: str = "epsilon") -> Any:
    return D.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=predicts,
    )  # fmt: skip


def sd(predicts: str = "epsilon") -> Any:
    return D.StableDiffusionPipeline(
        vae=autoencoder(4), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet(cross_attention_dim=WIDTH),
        scheduler=schedule(predicts), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    network = unet(
        cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )  # fmt: skip
    return D.StableDiffusionXLPipeline(
        vae=autoencoder(4), text_encoder=clip(), text_encoder_2=clip(True), tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(), unet=network, scheduler=schedule(),
    )  # fmt: skip


def sd3(reading: bool = True) -> Any:
    """reading: with its T5."""
    tokenizer, encoder = t5()
    network = D.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=4 * WIDTH if not reading else WIDTH * 2, caption_projection_dim=32, out_channels=4,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16,
    )  # fmt: skip
    if reading:  # a T5 as wide as the transformer reads
        encoder = T5EncoderModel(
            T5Config(vocab_size=encoder.config.vocab_size, d_model=2 * WIDTH, d_ff=37, d_kv=8, num_layers=2, num_heads=4)
        ).eval()
    return D.StableDiffusion3Pipeline(
        transformer=network, scheduler=D.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=autoencoder(4, 0.06),
        text_encoder=clip(True), tokenizer=clip_tokenizer(), text_encoder_2=clip(True), tokenizer_2=clip_tokenizer(),
        text_encoder_3=encoder if reading else None, tokenizer_3=tokenizer if reading else None,
    )  # fmt: skip


def flux(guided: bool = True) -> Any:
    """guided: told the strength of guidance, as the distilled model is."""
    tokenizer, encoder = t5()
    network = D.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=guided, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    scheduler = D.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    pipeline = D.FluxPipeline(
        transformer=network, scheduler=scheduler, vae=autoencoder(4, 0.1), text_encoder=clip(), tokenizer=clip_tokenizer(),
        text_encoder_2=encoder, tokenizer_2=tokenizer,
    )  # fmt: skip
    pipeline.default_sample_size = 8
    return pipeline


def of_classes(names: int = 3, flowing: bool = True) -> tuple[Any, Any]:
    """A network of pixels told classes, and its scheduler."""
    torch.manual_seed(0)
    network = D.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, num_class_embeds=names if names > 1 else None,
    )  # fmt: skip
    return network, D.FlowMatchEulerDiscreteScheduler() if flowing else schedule()


PIPELINES = {"sd": sd, "sdxl": sdxl, "sd3": sd3, "flux": flux}

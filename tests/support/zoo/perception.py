"""Vision, audio and mixed models of transformers, tiny and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zoo.entry import Entry, seeded
from zoo.language import GROUPED, SEQ2SEQ, TINY, VOCABULARY, loss

PLAIN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER = {**PLAIN, "intermediate_size": 24, "image_size": 16, "patch_size": 4}
STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}


def pictures(seed: int) -> dict[str, Tensor]:
    source = seeded(seed)
    labels = torch.randint(0, 2, (3,), generator=source)
    return {"pixel_values": torch.randn(3, 3, 16, 16, generator=source), "labels": labels}


def segments(seed: int) -> dict[str, Tensor]:
    source = seeded(seed)
    labels = torch.randint(0, 2, (2, 32, 32), generator=source)
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=source), "labels": labels}


def sound(seed: int) -> dict[str, Tensor]:
    source = seeded(seed)
    labels = torch.randint(1, 10, (2, 4), generator=source)
    return {"input_values": torch.randn(2, 1600, generator=source), "labels": labels}


def spectra(seed: int) -> dict[str, Tensor]:
    source = seeded(seed)
    labels = torch.randint(3, VOCABULARY, (2, 5), generator=source)
    return {"input_features": torch.randn(2, 8, 40, generator=source), "labels": labels}


def captions(seed: int) -> dict[str, Any]:
    source = seeded(seed)
    tokens = torch.randint(3, VOCABULARY, (3, 6), generator=source)
    pixels = torch.randn(3, 3, 16, 16, generator=source)
    return {"input_ids": tokens, "pixel_values": pixels, "return_loss": True}


def dialogues(seed: int) -> dict[str, Tensor]:
    """Put the 16 positions of one picture before the words of each text."""
    source = seeded(seed)
    words = torch.randint(3, VOCABULARY - 1, (2, 5), generator=source)
    image = torch.full((2, 16), VOCABULARY - 1)
    labels = torch.cat([torch.full_like(image, -100), words], 1)
    pixels = torch.randn(2, 3, 16, 16, generator=source)
    return {"input_ids": torch.cat([image, words], 1), "pixel_values": pixels, "labels": labels}


_AUDIO = {
    **TINY,
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
    "mask_time_prob": 0.3,
    "vocab_size": 12,
}
_WHISPER = {
    **TINY,
    **SEQ2SEQ,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 16,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
_SEGFORMER = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
}
_CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ForImageClassification", ENCODER),
    "DeiT": ("ForImageClassification", ENCODER),
    "Beit": ("ForImageClassification", ENCODER),
    "Dinov2": ("ForImageClassification", {**ENCODER, "drop_path_rate": 0.2}),
    "Swin": ("ForImageClassification", {**_SWIN, "window_size": 2}),
    "ConvNext": ("ForImageClassification", {**STAGES, "num_stages": 2, "patch_size": 2}),
    "ResNet": ("ForImageClassification", {**STAGES, "embedding_size": 8}),
    "RegNet": ("ForImageClassification", {**STAGES, "embedding_size": 8, "groups_width": 4}),
}


def _entry(family: str, suffix: str, options: dict[str, Any], batch: Callable[[int], Any]) -> Entry:
    def make() -> nn.Module:
        config = getattr(transformers, f"{family}Config")(**options)
        return getattr(transformers, f"{family}{suffix}")(config)

    return Entry(family, make, batch, loss)


def _clip() -> nn.Module:
    vision = {**ENCODER, "projection_dim": 8}
    config = transformers.CLIPConfig(
        text_config={**TINY, "projection_dim": 8}, vision_config=vision, projection_dim=8
    )
    return transformers.CLIPModel(config)


def _llava() -> nn.Module:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**ENCODER),
        text_config=transformers.LlamaConfig(**TINY, **GROUPED),
        image_token_id=VOCABULARY - 1,
        image_seq_length=16,
    )
    return transformers.LlavaForConditionalGeneration(config)


ENTRIES = [
    *(_entry(family, *made, pictures) for family, made in _CLASSIFIERS.items()),
    _entry("Segformer", "ForSemanticSegmentation", _SEGFORMER, segments),
    _entry("Wav2Vec2", "ForCTC", _AUDIO, sound),
    _entry("Hubert", "ForCTC", _AUDIO, sound),
    _entry("Whisper", "ForConditionalGeneration", _WHISPER, spectra),
    Entry("CLIP", _clip, captions, loss),
    Entry("Llava", _llava, dialogues, loss),
]

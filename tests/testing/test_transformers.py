"""Models of transformers whose steps draw from NumPy, or leave hooks at their first call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import functrain as ft

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def segformer() -> Any:
    config = transformers.SegformerConfig(
        hidden_sizes=[4, 8, 8, 8], num_attention_heads=[1, 2, 2, 2], depths=[1] * 4, num_labels=3
    )
    labels = torch.randint(0, 3, (2, 32, 32))
    batch = {"pixel_values": torch.randn(2, 3, 32, 32), "labels": labels}
    return transformers.SegformerForSemanticSegmentation(config), batch


def llava() -> Any:
    vision = transformers.CLIPVisionConfig(image_size=8, patch_size=4, **SIZES)
    text = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, **SIZES)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=49)
    ids = torch.randint(3, 40, (2, 16))
    ids[0, 1:9] = 49  # both images are in the first text
    batch = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 8, 8), "labels": ids}
    return transformers.LlavaForConditionalGeneration(config), batch


def wav2vec2() -> Any:
    config = transformers.Wav2Vec2Config(
        conv_dim=(8, 8),
        conv_stride=(4, 4),
        conv_kernel=(8, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        vocab_size=20,
        mask_time_length=2,
        **SIZES,
    )
    labels = torch.randint(1, 20, (2, 4))
    return transformers.Wav2Vec2ForCTC(config), {
        "input_values": torch.randn(2, 800),
        "labels": labels,
    }


@pytest.mark.parametrize("make", [segformer, llava, wav2vec2])
def test_a_first_step_may_be_checked_and_follows_from_its_state(make: Any) -> None:
    torch.manual_seed(0)
    model, batch = make()
    plain = ft.program(model, lambda model, batch: model(**batch).loss, ft.optim.SGD(lr=0.01))
    checked = ft.checked(plain)
    expected, _ = checked.train_step(checked.init(), batch)
    np.random.rand()
    torch.rand(())
    state, _ = plain.train_step(plain.init(), batch)
    assert ft.tree.equal(state, expected)

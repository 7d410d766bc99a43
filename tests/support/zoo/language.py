"""Language models of transformers, tiny and with random weights."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zoo.entry import Entry, seeded

VOCABULARY = 61
# Names that most configurations share; older ones translate them (``attribute_map``).
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
SEQ2SEQ = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "decoder_start_token_id": 1,
}

CAUSAL: dict[str, dict[str, Any]] = {
    "GPT2": {},
    "GPTNeo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 2},
    "GPTNeoX": {},
    "GPTJ": {"rotary_dim": 4},
    "OPT": {"ffn_dim": 24, "word_embed_proj_dim": 16, "layerdrop": 0.3},
    "Bloom": {},
    "Llama": GROUPED,
    "Mistral": GROUPED,
    "Mixtral": GROUPED | EXPERTS,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED,
    "Qwen2Moe": GROUPED
    | EXPERTS
    | {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "decoder_sparse_step": 1},
    "Gemma": GROUPED,
    "Gemma2": GROUPED,
    "Phi": {},
    "Phi3": {},
    "Falcon": {"ffn_hidden_size": 24},
    "StableLm": GROUPED,
    "Olmo2": GROUPED,
    "Cohere": GROUPED,
    "Mamba": {"state_size": 4, "conv_kernel": 2},
}
MASKED: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"max_position_embeddings": 34},
    "DistilBert": {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
    "Albert": {"embedding_size": 8},
    "Electra": {"embedding_size": 8},
    "MPNet": {},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "ModernBert": {"global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
}
ENCODER_DECODER: dict[str, dict[str, Any]] = {
    "T5": {"d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
    "Bart": SEQ2SEQ,
    "Pegasus": SEQ2SEQ,
    "M2M100": SEQ2SEQ | {"encoder_layerdrop": 0.3, "decoder_layerdrop": 0.3},
}


_CLASSES = {"GPT2": "GPT2LMHeadModel"}


def tokens(seed: int) -> dict[str, Tensor]:
    """Sequences with padding at the end of one of them; padding has no label."""
    found = torch.randint(3, VOCABULARY, (3, 8), generator=seeded(seed))
    mask = torch.ones_like(found)
    mask[0, 6:] = 0
    labels = found.masked_fill(mask == 0, -100)
    return {"input_ids": found * mask, "attention_mask": mask, "labels": labels}


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).loss


def _entry(family: str, suffix: str, options: dict[str, Any]) -> Entry:
    def make() -> nn.Module:
        config = getattr(transformers, f"{family}Config")(**{**TINY, **options})
        return getattr(transformers, _CLASSES.get(family, f"{family}{suffix}"))(config)

    return Entry(family, make, tokens, loss)


ENTRIES = [
    _entry(family, suffix, options)
    for families, suffix in (
        (CAUSAL, "ForCausalLM"),
        (MASKED, "ForMaskedLM"),
        (ENCODER_DECODER, "ForConditionalGeneration"),
    )
    for family, options in families.items()
]

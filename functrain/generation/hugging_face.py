"""Language models of the transformers library."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain.errors.optional import require

KeysValues = tuple[tuple[Tensor, Tensor], ...]


@attrs.frozen(eq=False)
class HuggingFace:
    """What makes a causal language model of transformers map tokens to logits.

    Its cache of keys and values is taken out of the library's mutable one after each call, so here
    it is a value. That serves models whose every layer attends to all of the text.

    Attributes:
        module: the model, such as a ``GPT2LMHeadModel``.

    Example:
        ``generate(program, state, prompt, 20, adapter=HuggingFace)``
    """

    module: nn.Module

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits, [batch, n, vocabulary], of tokens, [batch, n]."""
        logits: Tensor = self.module(input_ids=tokens, use_cache=False).logits
        return logits

    def initial_cache(self, batch: int, length: int, device: torch.device) -> KeysValues:
        """Nothing yet."""
        return ()

    def forward_cached(self, tokens: Tensor, cache: KeysValues) -> tuple[Tensor, KeysValues]:
        """See :class:`~functrain.generation.Cached`."""
        library: Any = require("transformers", "transformers")
        kept = library.DynamicCache(cache) if cache else library.DynamicCache()
        output = self.module(input_ids=tokens, past_key_values=kept, use_cache=True)
        layers = output.past_key_values.layers
        return output.logits, tuple((layer.keys, layer.values) for layer in layers)

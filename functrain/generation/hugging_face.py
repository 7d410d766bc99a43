"""An adapter for language models of the transformers library."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from functrain.errors.optional import require

KeysValues = tuple[tuple[Tensor, Tensor], ...]


@attrs.frozen(eq=False)
class HuggingFace:
    """Adapts a causal language model of transformers to a function from tokens to logits.

    It copies the keys and values from the library's mutable cache after each call, so that its
    own cache is a value. This works for models in which every layer attends to the whole text.

    Attributes:
        module: the model, such as a ``GPT2LMHeadModel``.

    Example:
        ``generate(program, state, prompt, 20, adapter=HuggingFace)``
    """

    module: nn.Module

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the logits [batch, n, vocabulary] of tokens [batch, n]."""
        logits: Tensor = self.module(input_ids=tokens, use_cache=False).logits
        return logits

    def initial_cache(self, batch: int, length: int, device: torch.device) -> KeysValues:
        """Return an empty cache."""
        return ()

    def forward_cached(self, tokens: Tensor, cache: KeysValues) -> tuple[Tensor, KeysValues]:
        """See :class:`~functrain.generation.Cached`."""
        library: Any = require("transformers", "transformers")
        kept = library.DynamicCache(cache) if cache else library.DynamicCache()
        output = self.module(input_ids=tokens, past_key_values=kept, use_cache=True)
        layers = output.past_key_values.layers
        return output.logits, tuple((layer.keys, layer.values) for layer in layers)

"""Run a model on a text: on all tokens, or with a cache only on the new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor, nn

from functrain.errors import ModelError

# Maps tokens [batch, n] to logits [batch, n, vocabulary].
LanguageModel: TypeAlias = Callable[[Tensor], Tensor]


@runtime_checkable
class Cached(Protocol):
    """A model that can continue from a cache of a text, such as keys and values.

    A cache is a value: ``forward_cached`` returns a new one and leaves the given one unchanged.
    The model decides on its content.
    """

    def initial_cache(self, batch: int, length: int, device: torch.device) -> Any:
        """Return the cache before the first token.

        Args:
            batch: number of texts.
            length: maximum number of tokens of a text.
            device: the device of the model.
        """
        ...

    def forward_cached(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Run the model on further tokens.

        Args:
            tokens: the next tokens, int64 [batch, n].
            cache: the cache of all earlier tokens.

        Returns:
            (logits [batch, n, vocabulary], cache of all tokens so far).
        """
        ...


@attrs.frozen(eq=False)
class Reader:
    """The options of running a model on a text.

    Attributes:
        length: maximum number of tokens of a text.
        window: maximum number of tokens that the model sees at once.
        adapter: maps the bound module to a function from tokens to logits.
        use_cache: whether to use the cache of a model that is :class:`Cached`.
    """

    length: int
    window: int | None = None
    adapter: Callable[[nn.Module], LanguageModel] | None = None
    use_cache: bool = True

    def logits(self, module: nn.Module, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Return the logits of the token after each text.

        Args:
            module: the user's module, bound to a state.
            tokens: texts of equal length, int64 [batch, n].
            cache: the cache of all tokens except the last, or ``None``.

        Returns:
            (logits [batch, vocabulary], cache of these texts or ``None``).
        """
        model: Any = module if self.adapter is None else self.adapter(module)
        batch, length = tokens.shape
        limit = length if self.window is None else self.window
        # When the window slides, all positions change, so the cached values are no longer valid.
        if not self.use_cache or length > limit or not isinstance(model, Cached):
            read = tokens[:, -limit:]
            return _last(model(read), read), None
        new = tokens[:, -1:]
        if cache is None:
            most = self.length if self.window is None else min(self.length, self.window)
            cache, new = model.initial_cache(batch, most, tokens.device), tokens
        logits, cache = model.forward_cached(new, cache)
        return _last(logits, new), cache


def _last(logits: Any, tokens: Tensor) -> Tensor:
    """Return the logits after the last token of each text, and refuse what are no logits."""
    batch, length = tokens.shape
    if not isinstance(logits, Tensor):
        found = f"a {type(logits).__name__}"
    elif logits.ndim != 3 or len(logits) != batch:
        found = f"a tensor of shape {list(logits.shape)}"
    elif logits.shape[1] not in (1, length) and logits.shape[2] == length:
        found = f"a tensor of shape {list(logits.shape)}, where the vocabulary comes first"
    else:
        return logits[:, -1]
    raise ModelError(
        f"generation needs logits [batch, n, vocabulary], for tokens of shape {[batch, length]}, "
        f"and the model returned {found}. Give an adapter that returns them, such as "
        "adapter=lambda model: lambda tokens: model(tokens)[0]"
    )

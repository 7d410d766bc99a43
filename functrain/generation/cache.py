"""Reading a text with a model, all of it or only what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor, nn

# Maps tokens [batch, n] to logits [batch, n, vocabulary].
LanguageModel: TypeAlias = Callable[[Tensor], Tensor]


@runtime_checkable
class Cached(Protocol):
    """A model that can go on from what it kept of a text, such as keys and values.

    A cache is a value: ``forward_cached`` returns another and leaves the given one as it was. What
    it holds is up to the model.
    """

    def initial_cache(self, batch: int, length: int, device: torch.device) -> Any:
        """The cache before the first token.

        Args:
            batch: texts.
            length: tokens that each will have at most.
            device: where the model computes.
        """
        ...

    def forward_cached(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Read on.

        Args:
            tokens: int64, [batch, n], those that come next.
            cache: of all tokens before.

        Returns:
            (logits [batch, n, vocabulary], cache of all tokens so far).
        """
        ...


@attrs.frozen(eq=False)
class Reader:
    """How a model is given a text.

    Attributes:
        length: tokens that a text has at most.
        window: tokens that the model sees at once.
        adapter: makes of the bound module what maps tokens to logits.
        use_cache: whether a model that is :class:`Cached` is used as such.
    """

    length: int
    window: int | None = None
    adapter: Callable[[nn.Module], LanguageModel] | None = None
    use_cache: bool = True

    def logits(self, module: nn.Module, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """What the model predicts after each text.

        Args:
            module: the user's, bound to a state.
            tokens: int64 texts of one length, [batch, n].
            cache: of all but the last token, or ``None``.

        Returns:
            (logits [batch, vocabulary], cache of these texts or ``None``).
        """
        model: Any = module if self.adapter is None else self.adapter(module)
        batch, length = tokens.shape
        limit = length if self.window is None else self.window
        # Where the window slides every token has another place in it, so what was kept is void.
        if not self.use_cache or length > limit or not isinstance(model, Cached):
            return model(tokens[:, -limit:])[:, -1], None
        new = tokens[:, -1:]
        if cache is None:
            most = self.length if self.window is None else min(self.length, self.window)
            cache, new = model.initial_cache(batch, most, tokens.device), tokens
        logits, cache = model.forward_cached(new, cache)
        return logits[:, -1], cache

"""The options of sampling, as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
from torch import Tensor

from functrain.errors.validators import optional
from functrain.generation import logits_processors as processors
from functrain.generation.multinomial import check, draw

Rule = Callable[[Tensor], Tensor]


@attrs.frozen
class Sampler:
    """Logits processors with the names and the order of transformers.

    Attributes:
        temperature: flattens (above 1) or sharpens (below 1) the distribution; 0 takes the most
            likely token, the first one of a tie.
        top_k: draw from this number of most likely tokens; 0 or ``None`` draws from all.
        top_p: draw from the most likely tokens that add up to this probability.
        min_p: draw from tokens at least this likely, relative to the most likely one.
        repetition_penalty: above 1 makes earlier tokens of the text less likely.
        no_repeat_ngram_size: never repeat an n-gram of this size; 0 or ``None`` allows it.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> import torch
        >>> logits, text = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[1]])
        >>> Sampler(temperature=0)(logits, text, torch.tensor([0.5]))
        tensor([1])
        >>> Sampler(top_k=2, repetition_penalty=2.0).processed(logits, text)
        tensor([[  -inf, 1.5000, 2.0000]])
    """

    temperature: float = attrs.field(default=1.0, validator=processors.TEMPERATURE)
    top_k: int | None = attrs.field(default=None, validator=optional(processors.TOP_K))
    top_p: float | None = attrs.field(default=None, validator=optional(processors.TOP_P))
    min_p: float | None = attrs.field(default=None, validator=optional(processors.MIN_P))
    repetition_penalty: float = attrs.field(default=1.0, validator=processors.REPETITION_PENALTY)
    no_repeat_ngram_size: int | None = attrs.field(
        default=None, validator=optional(processors.NO_REPEAT_NGRAM_SIZE)
    )

    def __call__(self, logits: Tensor, tokens: Tensor, uniform: Tensor) -> Tensor:
        """Choose the next token of each text.

        Args:
            logits: [batch, vocabulary].
            tokens: int64 texts so far, [batch, n].
            uniform: a random number from 0 to below 1 for each text, [batch].

        Returns:
            int64 tokens, [batch].

        Raises:
            LogitsError: a row has NaN or ``+inf``, or is ``-inf`` everywhere.
        """
        logits = self.processed(logits, tokens)
        if self.temperature > 0:
            return draw(logits, uniform)
        check(logits)
        return logits.argmax(-1)

    def processed(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Return the processed logits, in float32 or wider; arguments as above."""
        logits = logits if logits.dtype.itemsize >= 4 else logits.float()
        for rule in self.rules(tokens):
            logits = rule(logits)
        return logits

    def rules(self, tokens: Tensor) -> Iterator[Rule]:
        """Yield the logits processors for a text, in their order.

        Args:
            tokens: int64 texts so far, [batch, n].

        Yields:
            Functions from logits to logits.
        """
        if self.repetition_penalty != 1:
            yield lambda x: processors.repetition_penalty(x, tokens, self.repetition_penalty)
        if (size := self.no_repeat_ngram_size) is not None:
            yield lambda x: processors.no_repeat_ngram(x, tokens, size)
        if self.temperature == 0:  # take the most likely token, which the rest does not change
            return
        yield lambda x: processors.temperature(x, self.temperature)
        if (k := self.top_k) is not None:
            yield lambda x: processors.top_k(x, k)
        if (p := self.top_p) is not None:
            yield lambda x: processors.top_p(x, p)
        if (least := self.min_p) is not None:
            yield lambda x: processors.min_p(x, least)

"""Continue prompts with a language model: a pure function, streamed or at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, overload

import attrs
import torch
from torch import Tensor, nn

from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import LogitsError
from functrain.errors.validators import integer
from functrain.generation.cache import LanguageModel, Reader
from functrain.generation.multinomial import uniforms
from functrain.generation.prompts import Prompt, Prompts, prompt_rows
from functrain.generation.sampler import Sampler

Adapter: TypeAlias = Callable[[nn.Module], LanguageModel]
# One token or several.
Stop: TypeAlias = int | Collection[int] | Tensor
Weights: TypeAlias = Literal["params", "ema"]
_PLAIN = Sampler()


class Options(TypedDict, total=False):
    """The keyword arguments of :func:`generate`; see :func:`stream`."""

    sampler: Sampler
    weights: Weights
    window: int | None
    stop: Stop
    seed: int
    adapter: Adapter | None
    use_cache: bool


class Drawn(NamedTuple):
    """A drawn token, and the number of its text."""

    row: int
    token: int


@attrs.frozen(eq=False)
class _Group:
    """Unfinished texts of equal length, which the model reads as one batch.

    Attributes:
        rows: the numbers of the texts.
        tokens: [rows, length].
        cache: the cache of all tokens except the last, if there is one.
    """

    rows: tuple[int, ...]
    tokens: Tensor
    cache: Any = None


@attrs.frozen(eq=False)
class _Decoder:
    """The arguments that stay constant during decoding."""

    program: Program
    state: TrainState
    weights: Weights
    reader: Reader
    sampler: Sampler
    stop: frozenset[int]
    seed: int

    def tokens(self, groups: list[_Group], length: int) -> Iterator[Drawn]:
        """Yield one token of each text in turn."""
        for _ in range(length):
            for index, group in enumerate(groups):
                if not group.rows:
                    continue
                new, cache = self._next(group)
                tokens = new.tolist()
                groups[index] = self._extended(group, new, cache, tokens)
                yield from map(Drawn, group.rows, tokens)

    def _next(self, group: _Group) -> tuple[Tensor, Any]:
        """Return the next token of each text, and the cache of the texts before it."""
        uniform = uniforms(self.seed, group.rows, group.tokens.shape[1])
        # One scope per token, because the caller may train between two tokens.
        with self.program.evaluating(self.state, self.weights) as module:
            try:
                logits, cache = self.reader.logits(module, group.tokens, group.cache)
            except (IndexError, RuntimeError) as error:
                low, high = group.tokens.min().item(), group.tokens.max().item()
                error.add_note(
                    f"in a text of {group.tokens.shape[1]} tokens from {low} to {high}; if the "
                    "model reads fewer tokens at once, give their number as window="
                )
                raise
            try:
                return self.sampler(logits, group.tokens, uniform), cache
            except LogitsError as error:
                raise LogitsError(group.rows[error.row], error.largest) from None

    def _extended(self, group: _Group, new: Tensor, cache: Any, tokens: list[int]) -> _Group:
        """Return the texts with their new token, without those that ended."""
        longer = torch.cat([group.tokens, new[:, None]], 1)
        left = [index for index, token in enumerate(tokens) if token not in self.stop]
        if len(left) == len(tokens):
            return _Group(group.rows, longer, cache)
        # Only the model could split its cache, so it reads the remaining texts from scratch.
        return _Group(tuple(group.rows[index] for index in left), longer[left])


def stream(
    program: Program,
    state: TrainState,
    prompt: Prompts,
    length: int,
    *,
    sampler: Sampler = _PLAIN,
    weights: Weights = "params",
    window: int | None = None,
    stop: Stop = (),
    seed: int = 0,
    adapter: Adapter | None = None,
    use_cache: bool = True,
) -> Iterator[Drawn]:
    """Continue prompts with a language model, token by token.

    Between two tokens no state is held, so the caller may train, or stop the iteration.

    Args:
        program: a program with a module that maps int64 tokens [batch, n] to logits
            [batch, n, vocabulary]. A :class:`~functrain.generation.Cached` module reads only the
            new tokens.
        state: the state with the weights; not changed.
        prompt: one text as a tensor [n], or a list of texts of any lengths.
        length: number of tokens to add to each text.
        sampler: chooses each token.
        weights: ``"params"`` or ``"ema"``.
        window: the number of newest tokens that the model sees; by default all.
        stop: one or several tokens that end a text.
        seed: seed of the random stream. Each draw is a function of (seed, row, position).
        adapter: maps a module with another signature to a function from tokens to logits, such
            as :class:`~functrain.generation.HuggingFace`.
        use_cache: whether to use the cache of a model that has one.

    Returns:
        An iterator of (row, token): one token of every unfinished text in turn. A stop token is
        the last of its text.

    Raises:
        ConfigurationError: a prompt is empty or not a row of tokens, ``length`` or ``window`` is
            out of bounds, or the state has no such ``weights`` (with the first token).
        LogitsError: the model predicts NaN or ``inf`` (with that token).
        ModelError: the model returns something else than logits [batch, n, vocabulary].

    Example:
        >>> import functrain as ft
        >>> model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
        >>> program = ft.program(model, lambda model, batch: model(batch).mean(), ft.optim.SGD(0.1))
        >>> [drawn.row for drawn in stream(program, program.init(), [[1], [2, 3]], 2)]
        [0, 1, 0, 1]
    """
    rows = prompt_rows(prompt)
    integer(minimum=0).check("length", length)
    if window is not None:
        integer(minimum=1).check("window", window)
    reader = Reader(max(map(len, rows)) + length, window, adapter, use_cache)
    decoder = _Decoder(program, state, weights, reader, sampler, _stop_tokens(stop), seed)
    return decoder.tokens(_groups(rows, state.device), length)


@overload
def generate(
    program: Program, state: TrainState, prompt: Tensor, length: int, **options: Unpack[Options]
) -> Tensor: ...
@overload
def generate(
    program: Program,
    state: TrainState,
    prompt: Sequence[Prompt],
    length: int,
    **options: Unpack[Options],
) -> list[Tensor]: ...
def generate(
    program: Program, state: TrainState, prompt: Prompts, length: int, **options: Unpack[Options]
) -> Tensor | list[Tensor]:
    """Continue prompts with a language model; no state and no random generator changes.

    Args:
        program: see :func:`stream`, also for the other arguments.
        state: the state with the weights.
        prompt: one text as a tensor [n], or a list of texts.
        length: number of tokens to add to each text.
        **options: options of :func:`stream`.

    Returns:
        The prompt and the added tokens, int64 [n + length] on the CPU, or a list of these. A stop
        token is the last of its text.

    Raises:
        The errors of :func:`stream`.

    Example:
        >>> import functrain as ft
        >>> model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
        >>> program = ft.program(model, lambda model, batch: model(batch).mean(), ft.optim.SGD(0.1))
        >>> generate(program, program.init(), torch.tensor([1, 2]), 3).shape
        torch.Size([5])
    """
    texts = [row.tolist() for row in prompt_rows(prompt)]
    for row, token in stream(program, state, prompt, length, **options):
        texts[row].append(token)
    tensors = [torch.tensor(text) for text in texts]
    return tensors[0] if isinstance(prompt, Tensor) else tensors


def _stop_tokens(stop: Stop) -> frozenset[int]:
    several = stop.reshape(-1).tolist() if isinstance(stop, Tensor) else stop
    return frozenset([several] if isinstance(several, int) else map(int, several))


def _groups(rows: Sequence[Tensor], device: torch.device) -> list[_Group]:
    by_length: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(number)
    return [
        _Group(tuple(numbers), torch.stack([rows[number] for number in numbers]).to(device))
        for numbers in by_length.values()
    ]

"""Texts that a language model goes on with; pure, streamed or at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypedDict, Unpack, overload

import attrs
import torch
from torch import Tensor, nn

from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import LogitsError
from functrain.generation.bounds import Bounds
from functrain.generation.cache import LanguageModel, Reader
from functrain.generation.drawing import uniforms
from functrain.generation.prompts import Prompt, Prompts, rows_of
from functrain.generation.sampler import Sampler

Adapter: TypeAlias = Callable[[nn.Module], LanguageModel]
# A token, or several.
Stop: TypeAlias = int | Collection[int] | Tensor
_PLAIN = Sampler()


class Options(TypedDict, total=False):
    """What :func:`generate` takes by name; see :func:`stream`."""

    sampler: Sampler
    weights: str
    window: int | None
    stop: Stop
    seed: int
    adapter: Adapter | None
    use_cache: bool


class Drawn(NamedTuple):
    """A token that was drawn, and the number of the text it belongs to."""

    row: int
    token: int


@attrs.frozen(eq=False)
class _Group:
    """Texts of one length that have not ended, which the model reads as one batch.

    Attributes:
        rows: their numbers.
        tokens: [rows, length].
        cache: what the model kept of all but the last token, if anything.
    """

    rows: tuple[int, ...]
    tokens: Tensor
    cache: Any = None


@attrs.frozen(eq=False)
class _Continuation:
    """What does not change while texts grow."""

    program: Program
    state: TrainState
    weights: str
    reader: Reader
    sampler: Sampler
    stop: frozenset[int]
    seed: int

    def tokens(self, groups: list[_Group], length: int) -> Iterator[Drawn]:
        """The tokens of all texts, in turns."""
        for _ in range(length):
            for index, group in enumerate(groups):
                if not group.rows:
                    continue
                new, cache = self.next(group)
                tokens = new.tolist()
                groups[index] = self.after(group, new, cache, tokens)
                yield from map(Drawn, group.rows, tokens)

    def next(self, group: _Group) -> tuple[Tensor, Any]:
        """The next token of each text, and what the model kept of the texts before it."""
        uniform = uniforms(self.seed, group.rows, group.tokens.shape[1])
        # A scope for each token: whoever takes it may train before asking for another.
        with self.program.evaluating(self.state, self.weights) as module:
            logits, cache = self.reader.logits(module, group.tokens, group.cache)
            try:
                return self.sampler(logits, group.tokens, uniform), cache
            except LogitsError as error:
                raise LogitsError(group.rows[error.row], error.largest) from None

    def after(self, group: _Group, new: Tensor, cache: Any, tokens: list[int]) -> _Group:
        """The texts with their new token, without those that ended."""
        longer = torch.cat([group.tokens, new[:, None]], 1)
        left = [index for index, token in enumerate(tokens) if token not in self.stop]
        if len(left) == len(tokens):
            return _Group(group.rows, longer, cache)
        # How a cache is divided only the model knows: the texts that are left are read once more.
        return _Group(tuple(group.rows[index] for index in left), longer[left])


def stream(
    program: Program,
    state: TrainState,
    prompt: Prompts,
    length: int,
    *,
    sampler: Sampler = _PLAIN,
    weights: str = "params",
    window: int | None = None,
    stop: Stop = (),
    seed: int = 0,
    adapter: Adapter | None = None,
    use_cache: bool = True,
) -> Iterator[Drawn]:
    """Let a language model go on with prompts, token by token.

    Between two tokens nothing is changed or lent: whoever takes them may train, or take no more.

    Args:
        program: whose module maps int64 tokens [batch, n] to logits [batch, n, vocabulary]; one
            that is :class:`~functrain.generation.Cached` reads only what is new.
        state: holds the weights; not changed.
        prompt: one text as a tensor [n], or a list of several, of any lengths.
        length: tokens to add to each.
        sampler: how a token is chosen.
        weights: ``"params"`` or ``"ema"``.
        window: tokens the model sees at once, the newest; by default all.
        stop: a token that ends a text, or several.
        seed: of the random stream. What is drawn is a function of (seed, row, position).
        adapter: makes of the module what maps tokens to logits, where it does not by itself, such
            as :class:`~functrain.generation.HuggingFace`.
        use_cache: whether to use the cache of a model that has one.

    Returns:
        An iterator of (row, token): one token of every text that goes on, and so on. A stop token
        is the last of its text.

    Raises:
        ConfigurationError: a prompt is empty or not a row of tokens, ``length`` or ``window`` is
            out of bounds, or the state has no such ``weights`` (with the first token).
        LogitsError: the model predicts NaN or ``inf`` (with that token).

    Example:
        >>> import functrain as ft
        >>> model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
        >>> program = ft.program(model, lambda model, batch: model(batch).mean(), ft.optim.SGD(0.1))
        >>> [drawn.row for drawn in stream(program, program.init(), [[1], [2, 3]], 2)]
        [0, 1, 0, 1]
    """
    rows = rows_of(prompt)
    Bounds("length", 0, whole=True).check(length)
    if window is not None:
        Bounds("window", 1, whole=True).check(window)
    reader = Reader(max(map(len, rows)) + length, window, adapter, use_cache)
    continuation = _Continuation(program, state, weights, reader, sampler, _ends(stop), seed)
    return continuation.tokens(_groups(rows, state.device), length)


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
    program: Program,
    state: TrainState,
    prompt: Prompts,
    length: int,
    **options: Unpack[Options],
) -> Tensor | list[Tensor]:
    """Let a language model go on with prompts; neither the state nor any generator changes.

    Args:
        program: see :func:`stream`, here and below.
        state: holds the weights.
        prompt: one text as a tensor [n], or a list of several.
        length: tokens to add to each.
        **options: those of :func:`stream`.

    Returns:
        Prompt and what was added, int64 [n + length] on the CPU, or a list of these. A stop token
        is the last of its text.

    Raises:
        The errors of :func:`stream`.

    Example:
        >>> import functrain as ft
        >>> model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
        >>> program = ft.program(model, lambda model, batch: model(batch).mean(), ft.optim.SGD(0.1))
        >>> generate(program, program.init(), torch.tensor([1, 2]), 3).shape
        torch.Size([5])
    """
    texts = [row.tolist() for row in rows_of(prompt)]
    for row, token in stream(program, state, prompt, length, **options):
        texts[row].append(token)
    tensors = [torch.tensor(text) for text in texts]
    return tensors[0] if isinstance(prompt, Tensor) else tensors


def _ends(stop: Stop) -> frozenset[int]:
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

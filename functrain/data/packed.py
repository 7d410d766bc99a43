"""Pack documents of tokens into rows of equal length."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.errors.calls import explained

NO_DOCUMENT = -1
IGNORED = -100  # the ignore_index of torch.nn.functional.cross_entropy


@explained
@attrs.frozen(eq=False)
class Documents:
    """Documents concatenated in one array, such as a memory-mapped file.

    Args:
        tokens: tensor or array of shape ``[tokens]``; it is not copied.
        ends: the end of each document, ascending; the last one is the number of tokens.

    Example:
        >>> documents = Documents(torch.arange(5), ends=[2, 5])
        >>> len(documents), documents[1]
        (2, tensor([2, 3, 4]))
    """

    tokens: Any
    ends: Any

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Any:
        """Return the tokens of a document, as a view."""
        start = int(self.ends[index - 1]) if index else 0
        return self.tokens[start : int(self.ends[index])]

    def lengths(self) -> Tensor:
        """Return the number of tokens in each document: int64 of shape ``[documents]``."""
        ends = torch.as_tensor(self.ends, dtype=torch.int64)
        return ends.diff(prepend=ends.new_zeros(1))


@explained
@attrs.frozen(eq=False, repr=False)
class Packed:
    """Documents packed into rows of equal length for a language model: a dataset for ``Batches``.

    Documents are concatenated, each followed by the separator. Row r has the tokens from
    ``r * length`` on as inputs and the tokens one further as targets, so each token is an input
    once (except the last) and a target once (except the first). Tokens are read on demand.

    Args:
        documents: a tensor or array of tokens of shape ``[tokens]`` (one long document, which may
            be a ``numpy.memmap``); :class:`Documents` in one array; or a sequence of documents,
            each a tensor, array or list of token numbers.
        length: tokens in a row.
        separator: a token appended to each document; ``None`` appends none.
        drop_last: skip the tokens that do not fill a row. Otherwise the last row is padded with
            ``padding``, and its targets there with -100, which cross entropy ignores.
        padding: the padding token.
        boundaries: also return the documents' numbers and positions.

    Raises:
        ConfigurationError: ``length`` is below 1, or there are too few tokens for a row.

    Example:
        >>> rows = Packed([[1, 2, 3], [4, 5, 6]], length=3, separator=0, boundaries=True)
        >>> for row in rows[0], rows[1]:
        ...     print([part.tolist() for part in row])
        [[1, 2, 3], [2, 3, 0], [0, 0, 0], [0, 1, 2]]
        [[0, 4, 5], [4, 5, 6], [0, 1, 1], [0, 0, 1]]
    """

    documents: Any
    length: int
    separator: int | None = attrs.field(default=None, kw_only=True)
    drop_last: bool = attrs.field(default=True, kw_only=True)
    padding: int = attrs.field(default=0, kw_only=True)
    boundaries: bool = attrs.field(default=False, kw_only=True)
    # The start of each document among all tokens, separators included; and the total.
    _starts: Tensor = attrs.field(init=False)

    @_starts.default
    def _make_starts(self) -> Tensor:
        extra = 0 if self.separator is None else 1
        if isinstance(self.documents, Documents):
            lengths = self.documents.lengths() + extra
            return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        if self._is_flat:
            return torch.tensor([0, len(self.documents) + extra])
        return torch.tensor([0, *accumulate(len(one) + extra for one in self.documents)])

    def __attrs_post_init__(self) -> None:
        if self.length < 1:
            raise ConfigurationError(f"rows must have a length of at least 1, got {self.length}")
        if not len(self):
            raise ConfigurationError(
                f"{self.tokens} tokens make no row of {self.length} inputs and targets: it takes "
                f"{self.length + 1 if self.drop_last else 2}"
            )

    @property
    def _is_flat(self) -> bool:
        return getattr(self.documents, "ndim", None) == 1 and hasattr(self.documents, "dtype")

    @property
    def tokens(self) -> int:
        """The number of tokens in all documents, with the separators."""
        return int(self._starts[-1])

    def __len__(self) -> int:
        """Return the number of rows."""
        pairs = max(self.tokens - 1, 0)
        return (pairs + (0 if self.drop_last else self.length - 1)) // self.length

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        """Return one row.

        Returns:
            ``(inputs, targets)``, int64 tensors of shape ``[length]``; with ``boundaries`` also
            the number of each input's document (-1 for padding), so that attention can be limited
            to documents, and its position in the document, or in the row if that starts later.
        """
        return tuple(part[0] for part in self.batch_at(torch.tensor([row])))

    def batch_at(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Return several rows, each part of shape ``[rows, length]``."""
        rows = torch.stack([self._row(int(row)) for row in indices])
        inputs, targets = rows[:, :-1], rows[:, 1:]
        parts = (inputs.masked_fill(targets == IGNORED, self.padding), targets.contiguous())
        return (*parts, *self._boundaries(indices)) if self.boundaries else parts

    def _row(self, row: int) -> Tensor:
        """Return the ``length + 1`` tokens from the start of a row on, padded with -100."""
        if not 0 <= row < len(self):
            raise IndexError(f"no row {row}: there are {len(self)}")
        start, stop = row * self.length, min((row + 1) * self.length + 1, self.tokens)
        filled = torch.full((self.length + 1,), IGNORED)
        filled[: stop - start] = torch.cat(self._pieces(start, stop))
        return filled

    def _pieces(self, start: int, stop: int) -> list[Tensor]:
        first, last = torch.searchsorted(self._starts, torch.tensor([start, stop - 1]), right=True)
        pieces = []
        for number in range(int(first) - 1, int(last)):
            begin, end = self._starts[number : number + 2].tolist()
            document = self.documents if self._is_flat else self.documents[number]
            pieces.append(_as_int64(document[max(start - begin, 0) : stop - begin]))
            if self.separator is not None and end <= stop:
                pieces.append(torch.tensor([self.separator]))
        return pieces

    def _boundaries(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        starts = indices[:, None] * self.length
        places = starts + torch.arange(self.length)
        number = torch.searchsorted(self._starts, places, right=True) - 1
        inside = places < self.tokens - 1
        number = number.where(inside, NO_DOCUMENT)
        positions = places - torch.maximum(self._starts[number], starts)
        return number, positions.where(inside, 0)

    def __repr__(self) -> str:
        documents = len(self._starts) - 1
        return f"Packed({documents} documents, {self.tokens} tokens, {len(self)}x{self.length})"


def _as_int64(tokens: Any) -> Tensor:
    if isinstance(tokens, Tensor):
        return tokens.to(torch.int64)
    if hasattr(tokens, "astype"):  # torch lacks some of NumPy's types
        return torch.from_numpy(tokens.astype("int64"))
    return torch.tensor(tokens, dtype=torch.int64)

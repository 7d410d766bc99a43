"""Facts about a step that every rank must know, and that each knows of its own parts only."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import attrs
import torch
from torch import Tensor
from xxhash import xxh3_64, xxh3_64_intdigest

from functrain import tree
from functrain.core.accumulation import PartSums
from functrain.core.batch import Batch
from functrain.core.batch_splitting import MicroBatches
from functrain.core.loss import LossOutput
from functrain.core.state import Tensors, TrainState
from functrain.data.batch_parts import DIGESTS
from functrain.distributed.exchange import Exchange, Pending
from functrain.distributed.group import World
from functrain.errors import LossError
from functrain.tree import containers

_MASK = (1 << 63) - 1
# Bytes, and samples, of a tensor in a batch that are compared.
_READ, _LOOKED_AT = 1 << 16, 1 << 10


@attrs.frozen
class Facts:
    """Properties that some parts of a step have in common.

    Attributes:
        dtypes: of loss, weight and each metric by name, in order; ``None`` for a metric that is no
            tensor, which is merged.
        present: parameters that have a gradient in one of the parts.
        changed: buffers that the forward changed in one of them.
        reshaped: of these, the ones of another shape or dtype than before.
    """

    dtypes: tuple[tuple[str, torch.dtype | None], ...]
    present: frozenset[str]
    changed: frozenset[str]
    reshaped: frozenset[str]

    @property
    def text(self) -> str:
        """All of it, the same for facts that are equal."""
        sets: Iterable[frozenset[str]] = (self.present, self.changed, self.reshaped)
        return repr((self.dtypes, *map(sorted, sets)))

    @property
    def metrics(self) -> tuple[tuple[str, torch.dtype | None], ...]:
        """Name and dtype of each metric."""
        return self.dtypes[2:]

    def rewritten(self, before: Tensors) -> list[str]:
        """Return the buffers that have changed, but neither their shapes nor dtypes, in order."""
        return [path for path in before if path in self.changed and path not in self.reshaped]

    def merged(self, other: Facts) -> Facts:
        """Return the facts about the parts of both."""
        if dict(self.dtypes) != dict(other.dtypes):
            raise LossError(
                "every part of a step must report the same metrics of the same dtypes, got "
                f"{dict(self.dtypes)} and {dict(other.dtypes)}"
            )
        return Facts(
            self.dtypes,
            self.present | other.present,
            self.changed | other.changed,
            self.reshaped | other.reshaped,
        )


def facts_of(found: PartSums, before: Tensors) -> Facts | None:
    """Return the facts about the parts of one rank; ``None`` if it has none."""
    pairs = [(path, before[path], after[path]) for after in found.buffers for path in before]
    reshaped = {path for path, old, new in pairs if _form(old) != _form(new)}
    changed = {path for path, old, new in pairs if path in reshaped or not same(old, new)}
    present = frozenset[str]().union(*found.sums)
    each = [
        Facts(_dtypes(*one), present, frozenset(changed), frozenset(reshaped))
        for one in zip(found.loss_outputs, found.weights, strict=True)
    ]
    return functools.reduce(Facts.merged, each) if each else None


def same(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors of one shape and dtype have the same bytes; waits for a device."""
    return torch.equal(tree.to_bytes(first), tree.to_bytes(second))


@attrs.frozen(eq=False)
class Comparison:
    """A text that should be the same on every rank; its hashes are on their way."""

    hashes: Tensor
    pending: Pending

    @classmethod
    def start(cls, exchange: Exchange, text: str | None) -> Comparison:
        """Start to compare a text with those of other ranks; ``None`` differs from all."""
        hashes = torch.tensor(
            [0 if text is None else xxh3_64_intdigest(text.encode()) & _MASK] * exchange.ranks
        )
        each = [[one] for one in hashes.split(1)]  # type: ignore[no-untyped-call]
        return cls(hashes, exchange.start([each[exchange.rank]] * exchange.ranks, each))

    def alike(self) -> bool:
        """Wait for the others, and return whether all have the same text."""
        self.pending.wait()
        found = set(self.hashes.tolist())
        return len(found) == 1 and 0 not in found


def agreed(world: World, own: Facts | None, comparison: Comparison) -> Facts:
    """Return the facts about the parts of all ranks.

    They are nearly always alike, so at first only hashes are compared.
    """
    if not comparison.alike():
        every = [one for one in world.gathered(own) if one is not None]
        return functools.reduce(Facts.merged, every)
    assert own is not None, "a step has at least one part"
    return own


def digest_of(batch: Batch) -> int:
    """Return a number that tells a batch from another one, by the beginnings of its tensors.

    Only those in the memory of the host are read: others would make it wait for their device.
    """
    found = xxh3_64()
    for tensor in containers.tensors(batch.batches if isinstance(batch, MicroBatches) else batch):
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_nested:
            rows = tensor[:_LOOKED_AT] if tensor.ndim else tensor
            found.update(tree.to_bytes(rows)[:_READ].numpy().data)
    return found.intdigest() % DIGESTS


def digests_of(state: TrainState) -> dict[str, str | int]:
    """Return names and digests of the parts of a state that every rank must begin with."""
    seeded = "state.params (seed torch before the model is made, or pass a function that makes it)"
    names = {"params": seeded, "rng": "state.rng (the seed)"}
    parts = {field.name: getattr(state, field.name) for field in attrs.fields(TrainState)}
    return {names.get(part, f"state.{part}"): tree.digest(one) for part, one in parts.items()}


def _dtypes(loss_output: LossOutput, weight: Tensor) -> tuple[tuple[str, torch.dtype | None], ...]:
    metrics = (
        (name, one.dtype if isinstance(one, Tensor) else None)
        for name, one in loss_output.metrics.items()
    )
    return (("loss", loss_output.value.dtype), ("weight", weight.dtype), *metrics)


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype

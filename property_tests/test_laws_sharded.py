"""Laws of sharding on real processes: their number and the placement change no bit of a run."""

from __future__ import annotations

from typing import Any

import attrs
import ranks
from hypothesis import given
from hypothesis import strategies as st
from sharded_runs import digests, made, sharded_digests
from trying import tried

PLACEMENTS = ["none", "optimizer", "all"]
ELEMENTWISE = ["AdamW", "SGD", "RAdam", "Lion", "RMSprop", "ScheduleFreeAdamW"]
WHOLE = ["LAMB", "Adafactor"]


@attrs.frozen
class Case:
    """A run, and the number of ranks that compute it."""

    model: str
    parts: int
    ranks: int
    shard: str
    optimizer: str
    sizes: list[int]
    donated: bool
    options: dict[str, Any]

    def arguments(self, shard: str) -> tuple[Any, ...]:
        """Return those of ``sharded_digests``."""
        given = (self.model, self.sizes, self.parts, shard, self.optimizer)
        return *given, self.donated, self.options


@st.composite
def cases(draw: st.DrawFn) -> Case:
    model = draw(st.sampled_from(["Tiny", "MLP", "GPT"]))
    parts = draw(st.integers(2, 6))
    least = 2 * parts if model == "MLP" else 1  # batch norm takes no part of one sample
    clip = draw(st.sampled_from([{}, {"clip_norm": None}, {"clip_norm": None, "clip_value": 0.01}]))
    ema = draw(st.sampled_from([None, 0.9]))
    precision = draw(st.sampled_from(["float32", "bf16", "fp16"]))
    return Case(
        model=model,
        parts=parts,
        ranks=draw(st.integers(2, min(4, parts))),
        shard=draw(st.sampled_from(PLACEMENTS)),
        optimizer=draw(st.sampled_from([*ELEMENTWISE, *WHOLE])),
        sizes=draw(st.lists(st.integers(least, least + 20), min_size=1, max_size=3)),
        donated=draw(st.booleans()),
        options={**clip, "nonfinite": "skip", "precision": precision, "ema": ema},
    )


@tried(4)
@given(case=cases())
def test_any_number_of_ranks_has_the_bytes_of_accumulation(case: Case) -> None:
    plain = made(case.model, case.optimizer, accumulate=case.parts, **case.options)
    alone = digests(plain, case.model, case.sizes)
    found = ranks.run(sharded_digests, case.ranks, *case.arguments(case.shard))
    assert list(map(repr, found)) == [repr(alone)] * case.ranks  # NaN is unequal to itself

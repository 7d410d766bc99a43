"""The parts of a batch, over all ranks, are the parts that one process cuts."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain import MicroBatches
from functrain.core import batch_splitting
from functrain.data.batch_parts import BatchParts, Place, Sharing, cut, joined, shared
from functrain.errors import ConfigurationError, UnsupportedError

steps = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def every_rank(batch, parts, ranks):
    return [shared(batch, Sharing(parts, rank, ranks)) for rank in range(ranks)]


@given(steps, st.integers(1, 6), st.integers(1, 9))
def test_the_ranks_together_hold_each_part_of_each_loader_batch_once(sizes, parts, ranks):
    batches = [torch.arange(size) + 100 * index for index, size in enumerate(sizes)]
    whole = [part for one in batches if len(one) for part in batch_splitting.into(one, parts)]
    found = every_rank(MicroBatches(batches), parts, ranks)
    held = [(number, part) for one in found for number, part in one.parts.items()]
    assert [number for number, _ in held] == list(range(len(whole)))
    assert all(torch.equal(part, own) for (_, part), own in zip(held, whole, strict=True))
    for rank, one in enumerate(found):
        assert one.sizes == tuple(map(len, whole))
        assert (one.consumed, one.empty, one.samples) == (len(sizes), sizes.count(0), sum(sizes))
        assert one.bounds == found[0].bounds
        assert [*one.parts] == [*range(one.bounds[rank], one.bounds[rank + 1])]


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 4))
def test_full_batches_are_shared_as_evenly_as_the_parts_allow(parts, ranks, count):
    batch = MicroBatches([torch.zeros(parts)] * count)
    total = parts * count
    expected = tuple(rank * total // ranks for rank in range(ranks + 1))
    assert shared(batch, Sharing(parts, 0, ranks)).bounds == expected


def test_one_part_is_the_batch_itself_even_if_it_cannot_be_cut():
    batch = {"nodes": torch.zeros(7, 5), "edges": torch.zeros(2, 9)}
    alone = shared(batch, Sharing(parts=1))
    assert alone.parts[0] is batch
    assert alone.sizes == (7,)
    with pytest.raises(UnsupportedError, match="leading sizes differ"):
        shared(batch, Sharing(parts=2))


def test_the_parts_of_a_rank_are_passed_on_and_those_of_another_are_refused():
    sharing = Sharing(parts=4, rank=1, ranks=2)
    own = cut(torch.arange(8), sharing)
    assert shared(own, sharing) is own
    message = "expected the parts of rank 0 of 2, got the parts [2, 3] of a batch that 2 ranks"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        shared(own, Sharing(parts=4, rank=0, ranks=2))
    with pytest.raises(ConfigurationError, match="expected the parts of rank 1 of 3"):
        shared(own, Sharing(parts=4, rank=1, ranks=3))


def test_no_loader_batch_is_no_part():
    nothing = shared(MicroBatches([]), Sharing(parts=2, rank=0, ranks=2))
    assert (nothing.sizes, nothing.bounds, nothing.consumed) == ((), (0, 0, 0), 0)


def test_the_digest_of_a_step_depends_on_those_of_its_batches_and_their_order():
    sharing = Sharing(parts=1)
    one, other = (cut(torch.ones(1), sharing, Place(0, 2), digest) for digest in (5, 9))
    assert joined([one]).digest == 5
    assert len({joined(pair).digest for pair in ([one, other], [other, one], [one, one])}) == 3
    assert 0 <= joined([other, other]).digest < 2**24


def test_a_function_is_applied_to_each_part():
    parts = BatchParts({2: 3, 3: 4}, sizes=(1, 1, 1, 1), bounds=(0, 2, 4), digest=7)
    doubled = parts.map(lambda part: 2 * part)
    assert (doubled.parts, doubled.bounds, doubled.digest) == ({2: 6, 3: 8}, (0, 2, 4), 7)

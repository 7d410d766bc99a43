"""A first mistake is answered by what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from first_mistakes import FIRST
from messages import holds, message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "says"), FIRST, ids=[says[:60] for _, says in FIRST])
def test_the_message_says_what_where_and_what_to_do(make: Callable[[], object], says: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        make()
    assert says.count(" … ") == 2
    assert holds(message(raised.value), says), message(raised.value)


def test_there_are_many() -> None:
    assert len(FIRST) >= 50

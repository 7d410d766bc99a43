"""A first mistake is answered by what is wrong, where, and what to do about it."""

from __future__ import annotations

import pytest
from first_mistakes import FIRST, First


def message(mistake: First) -> str:
    """Return what a traceback ends with: the message and its notes."""
    with pytest.raises(Exception) as raised:  # noqa: PT011
        mistake.make()
    return "\n".join([str(raised.value), *getattr(raised.value, "__notes__", ())])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mistake", FIRST, ids=lambda mistake: mistake.what[:40])
def test_the_message_says_what_where_and_what_to_do(mistake: First) -> None:
    text = message(mistake)
    missing = [part for part in (mistake.what, mistake.where, mistake.remedy) if part not in text]
    assert not missing, text


def test_there_are_many() -> None:
    assert len(FIRST) >= 50

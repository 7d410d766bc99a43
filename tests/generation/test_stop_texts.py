"""Stop texts are found in any division into pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrain.errors import ConfigurationError
from functrain.generation import until

letters = st.text("ab", max_size=12)


@pytest.mark.row(45)
class TestUntil:
    @given(letters, st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
    def test_the_division_into_pieces_does_not_matter(
        self, text: str, stop: list[str], data: st.DataObject
    ) -> None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        # Character by character, a text ends when it ends with a stop text.
        expected = text
        for end in range(len(text) + 1):
            met = [ending for ending in stop if text[:end].endswith(ending)]
            if met:
                expected = text[: end - max(map(len, met))]
                break
        assert "".join(until(pieces, stop)) == expected
        assert all(until(pieces, stop))

    def test_a_piece_is_held_back_only_while_it_may_begin_a_stop_text(self) -> None:
        found = until(iter(["a", "b", "a", "b", "c"]), ["abc"])
        assert list(found) == ["ab"]
        assert list(until(["x", "a", "y"], ["ab"])) == ["x", "ay"]

    def test_nothing_is_read_after_the_stop_text(self) -> None:
        def pieces() -> Iterator[str]:
            yield "one."
            raise AssertionError("asked for more")

        assert list(until(pieces(), ["."])) == ["one"]

    def test_an_empty_stop_text_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match="stop text is empty"):
            list(until(["a"], ["b", ""]))

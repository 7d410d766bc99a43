"""Every error and warning is raised by its mistake; golden messages say what to do about it."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from first_mistakes import FIRST
from mistakes import MISTAKES

from functrain import errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BASES = {"FunctrainError", "FunctrainWarning"}
NAMED = {name: getattr(errors, name) for name in errors.__all__ if name not in BASES}
CASES = [
    pytest.param(*case[:3], marks=[pytest.mark.slow] * len(case[3:]), id=case[0].__name__)
    for case in MISTAKES
]


def message(error: BaseException) -> str:
    """Return what a traceback ends with: the message and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def commit(make: Callable[..., object], path: Path, patches: pytest.MonkeyPatch) -> None:
    make(*(path, patches)[: len(inspect.signature(make).parameters)])


def message_of_warning(category: type[Warning], *mistake: Any) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        commit(*mistake)
    (first, *_) = [each for each in caught if each.category is category]
    # A finalizer warns about a failed save that was never waited for: no line of the user's.
    if "was not saved" not in str(first.message):
        assert Path(first.filename).parent.name == "mistakes", "not the line of the user"
    return str(first.message)


@pytest.mark.parametrize(("error", "make", "fact"), CASES)
@pytest.mark.filterwarnings("ignore::functrain.errors.FunctrainWarning")
def test_a_mistake_raises_its_error(
    error: Any, make: Any, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if issubclass(error, Warning):
        text = message_of_warning(error, make, tmp_path, monkeypatch)
    else:
        with pytest.raises(error) as raised:
            commit(make, tmp_path, monkeypatch)
        assert raised.type is error
        text = message(raised.value)
    monkeypatch.undo()
    assert fact in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "says"), FIRST, ids=[says[:60] for _, says in FIRST])
def test_a_golden_message_says_what_where_and_what_to_do(make: Any, says: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        make()
    parts = map(re.escape, says.split(" … "))
    assert re.search(".*".join(parts), message(raised.value), re.DOTALL), message(raised.value)


def test_every_error_has_a_mistake_and_a_row_on_its_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert {error.__name__ for error, *_ in MISTAKES} == set(rows) == NAMED.keys()


def test_every_error_is_one_of_python_too() -> None:
    for kind in NAMED.values():
        bases = [each for each in kind.__mro__[1:] if each.__module__ == "builtins"]
        assert bases[0] is not Exception

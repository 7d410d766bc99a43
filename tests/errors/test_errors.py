"""Every error and warning is raised by its mistake, and says what to do about it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from messages import holds, message
from mistakes import MISTAKES, Mistake

from functrain import errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BASES = {"FunctrainError", "FunctrainWarning"}
NAMED = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type)
    and issubclass(value, errors.FunctrainError | errors.FunctrainWarning)
}


def message_of(mistake: Mistake, path: Path, patches: pytest.MonkeyPatch) -> str:
    """Return the message, or that of the first warning of the class."""
    if issubclass(mistake.error, Warning):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mistake.commit(path, patches)
        (first, *_) = [w for w in caught if w.category is mistake.error]
        # A finalizer warns about a failed save that was never waited for: no line of the user's.
        if "was not saved" not in str(first.message):
            assert Path(first.filename).parent.name == "mistakes", "not the line of the user"
        return str(first.message)
    with pytest.raises(mistake.error) as raised:
        mistake.commit(path, patches)
    assert raised.type is mistake.error
    return message(raised.value)


def named(mistake: Mistake) -> object:
    marks = [pytest.mark.slow] if mistake.slow else []
    first, *_ = mistake.says.split(" … ")
    return pytest.param(mistake, marks=marks, id=f"{mistake.error.__name__}-{first}")


@pytest.mark.parametrize("mistake", [named(each) for each in MISTAKES])
@pytest.mark.filterwarnings("ignore::functrain.errors.FunctrainWarning")
def test_a_mistake_raises_its_message(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = message_of(mistake, tmp_path, monkeypatch)
    monkeypatch.undo()
    assert " … " in mistake.says
    assert holds(text, mistake.says), text


def test_every_error_has_a_mistake() -> None:
    shown = {mistake.error.__name__ for mistake in MISTAKES}
    assert shown == NAMED.keys() - BASES


def test_every_error_is_on_its_page_with_its_meaning_and_a_remedy() -> None:
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines()]
    found = {row[0].strip("`"): row for row in rows if row[0].startswith("`") and len(row) > 1}
    assert found.keys() == NAMED.keys() - BASES
    for name, (_, cause, remedy) in found.items():
        sentence = (NAMED[name].__doc__ or "").splitlines()[0].split(";")[0].rstrip(".")
        assert cause == sentence, name
        assert len(remedy) > 10, name


def test_every_error_is_one_of_python_too() -> None:
    for name, kind in NAMED.items():
        if name not in BASES:
            base = kind.__mro__[1:]
            assert re.search("Error$|Warning$", name)
            assert any(each.__module__ == "builtins" and each is not Exception for each in base)

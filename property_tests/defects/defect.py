"""A planted defect: a small change of one file, and the law that it breaks."""

from __future__ import annotations

import attrs

LAWS = "property_tests/test_laws_{}.py::test_{}"
Change = tuple[str, str]


@attrs.frozen
class Defect:
    """A mistake that someone could make.

    Attributes:
        name: what goes wrong, in words.
        file: its path within functrain.
        changes: pieces of the text that stand there once, and what is put in their place.
        law: the test that must turn red.
    """

    name: str
    file: str
    changes: tuple[Change, ...]
    law: str


def defect(name: str, file: str, old: str, new: str, family: str, law: str) -> Defect:
    """A defect of one change.

    Args:
        name: the fault.
        file: its path within functrain.
        old: source text that occurs once in the file.
        new: its replacement.
        family: the law's file, without ``test_laws_``.
        law: the name of the test without ``test_``.
    """
    return Defect(name, file, ((old, new),), LAWS.format(family, law))

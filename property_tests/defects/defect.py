"""A planted defect: a small change of one file, and the law that it breaks."""

from __future__ import annotations

import attrs

Change = tuple[str, str]


def _test(law: str) -> str:
    """Return the test of a law, written as ``FAMILY: NAME`` or as the test itself."""
    family, found, name = law.partition(": ")
    return f"property_tests/test_laws_{family}.py::test_{name}" if found else law


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
    law: str = attrs.field(converter=_test)


def defect(name: str, file: str, old: str, new: str, law: str) -> Defect:
    """Return a defect of one change; ``old`` occurs once in the file."""
    return Defect(name, file, ((old, new),), law)

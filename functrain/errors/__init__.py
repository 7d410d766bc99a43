"""All errors and warnings of functrain, each under the nearest builtin class."""

from functrain.errors.base import *  # noqa: F403
from functrain.errors.checkpoints import *  # noqa: F403
from functrain.errors.former import *  # noqa: F403
from functrain.errors.programs import *  # noqa: F403
from functrain.errors.runs import *  # noqa: F403


def _is_public(name: str) -> bool:
    return name.endswith(("Error", "Warning")) and globals()[name].__name__ == name


__all__ = sorted(filter(_is_public, globals()))

for _name in __all__:
    # Tracebacks and warning filters name the public place.
    globals()[_name].__module__ = __name__

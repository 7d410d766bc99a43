"""Optional packages: imported when used, with a word on how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from functrain.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: the extra of functrain that installs it.

    Raises:
        MissingExtraError: it is not installed.

    Example:
        >>> require("no_such_package", "plot")
        Traceback (most recent call last):
        functrain.errors.MissingExtraError: this needs the package no_such_package. Install it ...
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"this needs the package {package}. Install it with: pip install 'functrain[{extra}]'"
        ) from error

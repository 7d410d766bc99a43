"""Errors where torchrun started several processes, so that they are read once on the screen.

torchrun ends with a summary, which shows the error file of each rank. An error that all ranks raise
alike is printed by the first rank of each machine only.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from functrain.errors import ConfigError, ConfigurationError, RankFailedError, RankMismatchError

# https://docs.pytorch.org/docs/stable/elastic/errors.html
_FILE = "TORCHELASTIC_ERROR_FILE"
_ALIKE = (ConfigError, ConfigurationError, RankFailedError, RankMismatchError)


def record(text: str) -> None:
    """Write an error for torchrun's summary, if torchrun started this process.

    Args:
        text: what a person should read.
    """
    file = os.environ.get(_FILE)
    if file:
        message = {"message": text, "extraInfo": {"timestamp": int(time.time())}}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")


def is_printed_elsewhere(error: BaseException) -> bool:
    """Return whether another process on this machine prints the same error.

    Args:
        error: that of this process; it is recorded, and so not lost if the other raises none.
    """
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    return isinstance(error, _ALIKE) and not first and bool(os.environ.get(_FILE))

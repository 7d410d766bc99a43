"""Run the command line: warnings and errors of functrain print one line, without a traceback.

torchrun ends with a summary, which shows the error file of each rank. So that errors are read once
on the screen, the first rank of each machine prints those that all ranks raise alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from functrain.cli.application import app
from functrain.cli.output import show_warning
from functrain.errors import (
    ConfigError,
    ConfigurationError,
    FunctrainError,
    ListenerError,
    RankFailedError,
    RankMismatchError,
)

# https://docs.pytorch.org/docs/stable/elastic/errors.html
_FILE = "TORCHELASTIC_ERROR_FILE"
_ALIKE = (ConfigError, ConfigurationError, RankFailedError, RankMismatchError)


def main() -> None:
    """Run the command line; errors of functrain print one line without a traceback."""
    warnings.showwarning = show_warning
    try:
        app(prog_name="functrain")
    except FunctrainError as error:
        if isinstance(error, ListenerError):  # an error in the user's code needs its traceback
            _record(traceback.format_exc())
            raise
        # An OSError has the message without "[Errno 2]" in strerror.
        text = f"functrain: {getattr(error, 'strerror', None) or error or type(error).__name__}"
        _record(text)
        if not _is_printed_elsewhere(error):
            print(text, file=sys.stderr)
        sys.exit(2)
    except Exception:  # not hidden: raised again, once torchrun's summary has it
        _record(traceback.format_exc())
        raise


def _record(text: str) -> None:
    """Write an error for torchrun's summary, if torchrun started this process."""
    file = os.environ.get(_FILE)
    if file:
        message = {"message": text, "extraInfo": {"timestamp": int(time.time())}}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")


def _is_printed_elsewhere(error: BaseException) -> bool:
    """Return whether another process on this machine prints the same error."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    return isinstance(error, _ALIKE) and not first and bool(os.environ.get(_FILE))

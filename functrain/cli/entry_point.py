"""Run the command line: warnings and errors of functrain print one line, without a traceback."""

from __future__ import annotations

import sys
import traceback
import warnings

from functrain.cli import torchrun_errors
from functrain.cli.application import app
from functrain.cli.output import show_warning
from functrain.errors import FunctrainError, ListenerError


def main() -> None:
    """Run the command line; errors of functrain print one line without a traceback."""
    warnings.showwarning = show_warning
    try:
        app(prog_name="functrain")
    except FunctrainError as error:
        if isinstance(error, ListenerError):  # an error in the user's code needs its traceback
            torchrun_errors.record(traceback.format_exc())
            raise
        # An OSError has the message without "[Errno 2]" in strerror.
        text = f"functrain: {getattr(error, 'strerror', None) or error or type(error).__name__}"
        torchrun_errors.record(text)
        if not torchrun_errors.is_printed_elsewhere(error):
            print(text, file=sys.stderr)
        sys.exit(2)
    except Exception:
        torchrun_errors.record(traceback.format_exc())
        raise

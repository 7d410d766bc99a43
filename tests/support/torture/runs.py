"""The tortured runs, and the process of one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

HERE = Path(__file__).parent
LISTENERS = (
    "listeners=[{_target_: functrain.listeners.CSV, path: '${directory}/metrics.csv'},"
    " {_target_: functrain.listeners.Digests, directory: '${directory}'}]"
)
DIGITS = (
    *("model.width=8", "data.workers=2", "program.accumulate=2", "threads=1"),
    *("fit.until=150 steps", "fit.eval_every=20 steps", "fit.save_every=7 steps"),
    *("checkpoints.background=true", "checkpoints.keep_last=3", LISTENERS),
)
OWN = str(HERE / "tortured.yaml")
# Source and overrides of ``functrain train``.
CASES: dict[str, tuple[str, ...]] = {
    "digits": ("digits", *DIGITS),
    "loader": (OWN, "data.kind=loader", LISTENERS),
    "stateful": (OWN, "data.kind=stateful", LISTENERS),
}
# Files that must end the same, byte for byte.
FILES = ("metrics.jsonl", "metrics.csv", "digests.jsonl")


@attrs.frozen(eq=False)
class Child:
    """A process of ``functrain train`` and its children.

    Attributes:
        process: leads a group of its own.
        directory: the run directory.
        output: what it prints.
    """

    process: subprocess.Popen[bytes]
    directory: Path
    output: Path

    @classmethod
    def start(cls, case: str, directory: Path, clock: str | None = None) -> Child:
        """Start or continue a run; with ``clock``, a seed, in a process with a jumping clock."""
        source, *options = CASES[case]
        command = [sys.executable, "-m", "functrain", "train", source, *options]
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
        if clock is not None:
            environment |= {"TORTURE_CLOCK": clock, "PYTHONPATH": str(HERE / "clock")}
        output = directory.parent / f"{directory.name}.txt"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [*command, f"directory={directory}"],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        return cls(process, directory, output)

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals, group: bool = True) -> None:
        """Send a signal if the process still exists."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)

    def await_progress(self, seconds: float = 60) -> bool:
        """Wait until the log has grown; false if the process ended before."""
        before, deadline = self._logged(), time.monotonic() + seconds
        while self.alive and self._logged() <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.alive

    def await_end(self, seconds: float = 90) -> int | None:
        """Return its exit code, or ``None`` if it hangs; then dump its stack and end it."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGABRT, group=False)
            time.sleep(1)
            return None
        finally:
            self.signal(signal.SIGKILL)  # workers, too
            self.process.wait()

    def said(self) -> str:
        """Return the end of its output, without the modules that faulthandler lists."""
        told = self.output.read_text(errors="replace").splitlines()
        return "\n".join(line for line in told if not line.startswith("Extension modules:"))[-6000:]

    def _logged(self) -> int:
        log = self.directory / "metrics.jsonl"
        return log.stat().st_size if log.exists() else 0

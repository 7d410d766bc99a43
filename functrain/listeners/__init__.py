"""Listeners that come with functrain: pass them to ``ft.fit(..., listeners=[...])``.

Monitors add values to the row of a step, so list them before sinks, which write rows. The order of
all others, which print or copy, does not matter. ``every.py`` is a small one to begin with.
"""

from typing import TYPE_CHECKING, NoReturn

from functrain.errors.nearest import unknown_attribute
from functrain.errors.other_libraries import IN_LISTENERS
from functrain.listeners.console import Console
from functrain.listeners.digests import Digests
from functrain.listeners.every import Every
from functrain.listeners.group_monitors import GradientMonitor, UpdateMonitor
from functrain.listeners.live_curves import LiveCurves
from functrain.listeners.media import Media
from functrain.listeners.mirror import Mirror
from functrain.listeners.process_monitors import MemoryMonitor, ThroughputMonitor
from functrain.listeners.profiler import Profiler
from functrain.listeners.sample_text import SampleText
from functrain.listeners.sinks import (
    CSV,
    JSONL,
    Destination,
    MLflow,
    Sink,
    TensorBoard,
    Trackio,
    WandB,
)
from functrain.training.progress.bar import ProgressBar

__all__ = [
    "CSV",
    "JSONL",
    "Console",
    "Destination",
    "Digests",
    "Every",
    "GradientMonitor",
    "LiveCurves",
    "MLflow",
    "Media",
    "MemoryMonitor",
    "Mirror",
    "Profiler",
    "ProgressBar",
    "SampleText",
    "Sink",
    "TensorBoard",
    "ThroughputMonitor",
    "Trackio",
    "UpdateMonitor",
    "WandB",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the module

    def __getattr__(name: str) -> NoReturn:
        raise unknown_attribute("module 'functrain.listeners'", name, __all__, IN_LISTENERS)

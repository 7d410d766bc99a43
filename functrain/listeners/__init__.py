"""Listeners that come with functrain: hand them to ``ft.fit(..., listeners=[...])``.

Those that measure (monitors) add to the row of a step, so they stand before those that write rows
down (sinks). Those that print or copy may stand anywhere.
"""

from functrain.listeners.console import Console
from functrain.listeners.digests import Digests
from functrain.listeners.every import Every
from functrain.listeners.gradient_monitor import GradientMonitor
from functrain.listeners.live_curves import LiveCurves
from functrain.listeners.memory_monitor import MemoryMonitor
from functrain.listeners.mirror import Mirror
from functrain.listeners.profiler import Profiler
from functrain.listeners.progress import ProgressBar
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
from functrain.listeners.update_monitor import UpdateMonitor

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
    "MemoryMonitor",
    "Mirror",
    "Profiler",
    "ProgressBar",
    "SampleText",
    "Sink",
    "TensorBoard",
    "Trackio",
    "UpdateMonitor",
    "WandB",
]

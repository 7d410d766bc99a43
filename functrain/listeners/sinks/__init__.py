"""Write the metrics of a run to files and experiment trackers."""

from functrain.listeners.sinks.files import CSV, JSONL
from functrain.listeners.sinks.mlflow import MLflow
from functrain.listeners.sinks.sink import Destination, Sink
from functrain.listeners.sinks.step_trackers import Trackio, WandB
from functrain.listeners.sinks.tensorboard import TensorBoard

__all__ = ["CSV", "JSONL", "Destination", "MLflow", "Sink", "TensorBoard", "Trackio", "WandB"]

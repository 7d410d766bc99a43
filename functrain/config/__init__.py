"""Configuration of runs: YAML with overrides, checked, typed, and built into objects."""

from functrain.config.building import Built, build, build_program, importable
from functrain.config.reading import Loaded, load
from functrain.config.schema import RunConfig
from functrain.config.targets import imported, instantiated

__all__ = [
    "Built",
    "Loaded",
    "RunConfig",
    "build",
    "build_program",
    "importable",
    "imported",
    "instantiated",
    "load",
]

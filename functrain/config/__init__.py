"""Configuration of runs: YAML with overrides, checked, typed, and built into objects.

Begin with ``reading.py`` (a file becomes a ``RunConfig``), then ``building.py`` (a ``RunConfig``
becomes a program, data and arguments of ``fit``).
"""

from functrain.config.building import Built, build, fit_arguments, import_folders, importable
from functrain.config.making import build_program
from functrain.config.reading import Loaded, load, typed
from functrain.config.schema import RunConfig
from functrain.config.targets import imported, instantiated

__all__ = [
    "Built",
    "Loaded",
    "RunConfig",
    "build",
    "build_program",
    "fit_arguments",
    "import_folders",
    "importable",
    "imported",
    "instantiated",
    "load",
    "typed",
]

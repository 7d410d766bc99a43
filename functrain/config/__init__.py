"""Configure runs: read YAML with overrides, check it, and build the objects of the run.

Begin with ``loading.py`` (a file becomes a ``RunConfig``), then ``run_objects.py`` (a
``RunConfig`` becomes a program, data and the arguments of ``fit``).
"""

from functrain.config.factories import build_program
from functrain.config.loading import Loaded, load, load_search, typed
from functrain.config.run_objects import (
    RunObjects,
    build,
    fit_arguments,
    import_folders,
    importable,
)
from functrain.config.schema import RunConfig, SearchConfig
from functrain.config.targets import imported, instantiated

__all__ = [
    "Loaded",
    "RunConfig",
    "RunObjects",
    "SearchConfig",
    "build",
    "build_program",
    "fit_arguments",
    "import_folders",
    "importable",
    "imported",
    "instantiated",
    "load",
    "load_search",
    "typed",
]

"""All errors and warnings of functrain, each under the nearest builtin class."""

from functrain.errors.base import *  # noqa: F403
from functrain.errors.base import ConfigurationError, UnsupportedError
from functrain.errors.checkpoints import *  # noqa: F403
from functrain.errors.programs import *  # noqa: F403
from functrain.errors.programs import ModuleStateWarning, NonFiniteWarning, RecompileWarning
from functrain.errors.runs import *  # noqa: F403
from functrain.errors.runs import RankMismatchError, RunDirectoryError, WorkerError

__all__ = sorted(name for name in globals() if name.endswith(("Error", "Warning")))

for _name in __all__:
    # Tracebacks and warning filters name the public place.
    globals()[_name].__module__ = __name__

# Former names, which a program may still catch.
AloneError = RankMismatchError
AnomalyWarning = NonFiniteWarning
CheckpointDeviceError = UnsupportedError
CompileCacheWarning = RecompileWarning
DirectoryNotSharedError = RunDirectoryError
InvalidPositionError = ConfigurationError
SearchError = ConfigurationError
UntrainedParameterWarning = ModuleStateWarning
WorkerDiedError = WorkerTimeoutError = WorkerError

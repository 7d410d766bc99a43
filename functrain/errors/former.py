"""Former names of errors and warnings, which a program may still catch."""

from functrain.errors.base import ConfigurationError, UnsupportedError
from functrain.errors.programs import ModuleStateWarning, NonFiniteWarning, RecompileWarning
from functrain.errors.runs import RankMismatchError, RunDirectoryError, WorkerError

AloneError = RankMismatchError
AnomalyWarning = NonFiniteWarning
CheckpointDeviceError = UnsupportedError
CompileCacheWarning = RecompileWarning
DirectoryNotSharedError = RunDirectoryError
InvalidPositionError = ConfigurationError
SearchError = ConfigurationError
UntrainedParameterWarning = ModuleStateWarning
WorkerDiedError = WorkerTimeoutError = WorkerError

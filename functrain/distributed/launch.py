"""The place of this process among those that a launcher started, read from the environment.

torchrun and launchers like it set ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and
``MASTER_PORT``; ``srun`` sets variables of SLURM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from functrain.errors import ConfigurationError

_HINT = (
    "Start every process with torchrun or srun, or set RANK, WORLD_SIZE, MASTER_ADDR and "
    "MASTER_PORT in each; unset them to train in one process"
)


@attrs.frozen
class Launch:
    """One of several processes that train together; ``address`` is that of rank 0, if any."""

    rank: int
    size: int
    local_rank: int = 0
    address: str = ""
    port: int = 0


def from_environment(variables: Mapping[str, str]) -> Launch | None:
    """Return the place of this process, or ``None`` if nothing launched several.

    Example:
        >>> given = {"MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
        >>> from_environment({**given, "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
        Launch(rank=1, size=4, local_rank=1, address='node7', port=29500)
        >>> from_environment({})
    """
    if not is_launched(variables):
        return None
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    if "RANK" in variables or "WORLD_SIZE" in variables:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    rank, size = (_integer(variables, name) for name in names[:2])
    local_rank = _integer(variables, names[2]) if names[2] in variables else 0
    if not 0 <= rank < size:
        raise ConfigurationError(
            f"expected {names[0]} from 0 to {names[1]} - 1, got {names[0]}={rank} and "
            f"{names[1]}={size}. {_HINT}"
        )
    address, port = _master(variables, size)
    return Launch(rank, size, local_rank, address, port)


def processes(variables: Mapping[str, str]) -> int:
    """Return how many processes a launcher says it has started; 1 if none says."""
    name = "WORLD_SIZE"
    if name not in variables and _is_step_of_slurm(variables):
        name = "SLURM_NTASKS"
    text = variables.get(name, "1")
    return int(text) if text.isdecimal() else 1


def is_launched(variables: Mapping[str, str]) -> bool:
    """Return whether a launcher started this process, alone or as one of several."""
    return "RANK" in variables or "WORLD_SIZE" in variables or _is_step_of_slurm(variables)


def _is_step_of_slurm(variables: Mapping[str, str]) -> bool:
    """Whether srun started this process as one of several.

    The shell of a batch job has SLURM's variables too, and ``srun --pty`` starts a single one.
    """
    if "SLURM_PROCID" not in variables or variables.get("SLURM_NTASKS", "1") == "1":
        return False
    return "SLURM_STEP_NODELIST" in variables or "SLURM_JOB_NODELIST" not in variables


def _integer(variables: Mapping[str, str], name: str) -> int:
    if name not in variables:
        raise ConfigurationError(f"the environment has no {name} to go with the others. {_HINT}")
    try:
        return int(variables[name])
    except ValueError:
        raise ConfigurationError(
            f"expected an integer in {name}, got {variables[name]!r}. {_HINT}"
        ) from None


def _master(variables: Mapping[str, str], size: int) -> tuple[str, int]:
    """Return address and port of rank 0; SLURM's if the variables of torch are not set."""
    nodes = variables.get("SLURM_STEP_NODELIST", "")
    address = variables.get("MASTER_ADDR") or first_node(nodes)
    if "MASTER_PORT" in variables:
        port = _integer(variables, "MASTER_PORT")
        if not 0 < port < 2**16:
            raise ConfigurationError(f"expected a port in MASTER_PORT, got {port}. {_HINT}")
        return address, port
    if address and "SLURM_JOB_ID" in variables:
        # One port for each job, above those that Linux gives out by itself.
        return address, 61440 + _integer(variables, "SLURM_JOB_ID") % 4096
    if size == 1:
        return "", 0
    missing = "MASTER_PORT" if address else "MASTER_ADDR"
    raise ConfigurationError(f"the environment says {size} processes, but no {missing}. {_HINT}")


def first_node(nodes: str) -> str:
    """Return the first name of a list of nodes as SLURM abbreviates it.

    Example:
        >>> first_node("gpu[003-007,012],login"), first_node("a1,b2")
        ('gpu003', 'a1')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else "")

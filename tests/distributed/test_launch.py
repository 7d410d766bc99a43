"""Variables of torchrun and SLURM say which process this is; incomplete ones are errors."""

from __future__ import annotations

import pytest

from functrain.distributed.launch import Launch, first_node, from_environment
from functrain.errors import ConfigurationError

TORCH = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_JOB_NODELIST": "gpu[08-11]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "0",
}
STEP = {**SLURM, "SLURM_STEP_NODELIST": "gpu[09-10]", "SLURM_PROCID": "6", "SLURM_LOCALID": "2"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"LOCAL_RANK": "0", "MASTER_ADDR": "n1"}, None),
        (TORCH, Launch(1, 2, 0, "n1", 29500)),
        ({**TORCH, "LOCAL_RANK": "1"}, Launch(1, 2, 1, "n1", 29500)),
        ({**STEP, **TORCH}, Launch(1, 2, 0, "n1", 29500)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Launch(0, 1)),
        (STEP, Launch(6, 8, 2, "gpu09", 61440 + 5000 % 4096)),
        ({**STEP, "MASTER_ADDR": "login", "MASTER_PORT": "7"}, Launch(6, 8, 2, "login", 7)),
        # The shell of a batch job is a single process, whatever number of tasks it may start.
        (SLURM, None),
        ({**SLURM, "MASTER_ADDR": "n1"}, None),
        # A task on its own needs no process group.
        ({**STEP, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
    ],
)
def test_the_place_of_a_process(variables: dict[str, str], expected: Launch | None) -> None:
    assert from_environment(variables) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({**TORCH, "RANK": "2"}, "expected RANK from 0 to WORLD_SIZE - 1, got RANK=2"),
        ({**TORCH, "RANK": "-1"}, "got RANK=-1 and WORLD_SIZE=2"),
        ({**TORCH, "WORLD_SIZE": "two"}, "expected an integer in WORLD_SIZE, got 'two'"),
        ({"RANK": "0"}, "no WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "no RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "2 processes, but no MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n1"}, "but no MASTER_PORT"),
        ({**TORCH, "MASTER_PORT": "70000"}, "expected a port in MASTER_PORT, got 70000"),
        ({**TORCH, "MASTER_PORT": ""}, "expected an integer in MASTER_PORT"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "4 processes, but no MASTER_ADDR"),
    ],
)
def test_incomplete_variables_say_what_is_missing(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        from_environment(variables)
    assert "torchrun or srun" in str(raised.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("", ""),
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[3-5]", "n3"),
        ("n[003-007,012],x", "n003"),
        ("n[4,7-9]", "n4"),
        ("rack[1-2]-node[05-08],x9", "rack1-node05"),
        ("n[3-5].cluster.example", "n3.cluster.example"),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first

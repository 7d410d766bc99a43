"""Real launchers: torchrun, variables set by hand, restarts; processes end without noise."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import pytest
import ranks

pytestmark = pytest.mark.slow

RUN = """
import os, signal, sys
import torch, torch.distributed as dist
import functrain as ft
from functrain.distributed import current

assert not dist.is_initialized()  # importing functrain joins nothing
world = current()
restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
for step in range(10):
    total = torch.tensor([1.0])
    dist.all_reduce(total)
    if restart == "0" and world.rank == 1 and step == 5:
        if "kill" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in sys.argv:
            raise ValueError("outside of any block")
        if "raise within" in sys.argv:
            with world.failing_together():
                raise ValueError("within a block")
names = world.gathered(f"rank {world.rank}")
# One write: torchrun runs Python unbuffered, and the lines of two ranks must not mix.
sys.stdout.write(f"{names} sum {total.item()} restart {restart}\\n")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "run.py"
    path.write_text(RUN)
    return path


def by_hand(
    n: int, script: Path, *args: str, timeout: float = 300, **more: str
) -> list[tuple[int, str, str]]:
    """Start processes with variables set by hand; give exit code, output and errors of each."""
    port, found = str(ranks.free_port()), []
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    variables = {**os.environ, **shared, "PYTHONPATH": str(ranks.ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *args],
            env={**variables, "RANK": str(rank), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]
    try:
        for process in processes:
            out, err = process.communicate(timeout=timeout)
            found.append((process.returncode, out, err))
    finally:
        for process in processes:
            process.kill()
    return found


def test_an_import_changes_nothing(tmp_path: Path) -> None:
    script = tmp_path / "importing.py"
    script.write_text(
        "import os, threading\n"
        "before = dict(os.environ)\n"
        "import torch, torch.distributed as dist\n"
        "known, threads = dict(os.environ), threading.active_count()\n"
        "import functrain, functrain.distributed, functrain.training, functrain.cli\n"
        "assert dict(os.environ) == known\n"
        "assert threading.active_count() == threads\n"
        "assert not dist.is_initialized()\n"
        "program = functrain.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(),\n"
        "    functrain.optim.SGD(lr=0.1))\n"
        "program.train_step(program.init(), torch.ones(4, 2))\n"
        "assert not dist.is_initialized()\n"
    )
    # Nobody listens at the address, so joining would fail.
    ((code, _, errors),) = by_hand(1, script, WORLD_SIZE="2", RANK="1")
    assert code == 0, errors


@pytest.mark.long
def test_two_nodes_on_one_machine(script: Path) -> None:
    port = ranks.free_port()
    nodes = [
        ["--nnodes=2", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        for node in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(ranks.torchrun, 1, script, options=options) for options in nodes]
        for done in (each.result() for each in started):
            assert done.returncode == 0, done.stderr
            assert done.stdout == "['rank 0', 'rank 1'] sum 2.0 restart 0\n"


@pytest.mark.long
def test_a_normal_end_is_silent(script: Path) -> None:
    line = "['rank 0', 'rank 1'] sum 2.0 restart 0\n"
    assert by_hand(2, script) == [(0, line, "")] * 2


def test_torchrun(script: Path) -> None:
    done = ranks.torchrun(2, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['rank 0', 'rank 1'] sum 2.0 restart 0\n" * 2
    assert "Warning" not in done.stderr
    assert "W1" not in done.stderr, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("fault", ["kill", "raise", "raise within"])
def test_torchrun_restarts_all_ranks(script: Path, fault: str) -> None:
    done = ranks.torchrun(2, script, fault, options=["--max-restarts=1", "--standalone"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("['rank 0', 'rank 1'] sum 2.0 restart 1\n") == 2, done.stdout


@pytest.mark.sweep
@pytest.mark.parametrize("fault", ["raise", "raise within"])
def test_an_unhandled_exception_does_not_hang_at_exit(script: Path, fault: str) -> None:
    (_, _, first), (code, _, second) = by_hand(2, script, fault)
    assert code == 1
    assert "ValueError" in second.splitlines()[-1]
    # Rank 0 hears of it from rank 1, or gloo finds the connection closed, perhaps as it is made.
    assert any(text in first for text in ("ValueError", "closed by peer", "remote worker"))


def test_a_launch_without_its_master_ends_with_a_named_error() -> None:
    code = "from functrain.distributed import current\ncurrent(timeout=2)"
    variables = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    children = []
    for rank in range(2):
        own = {"RANK": str(rank), "MASTER_PORT": str(ranks.free_port())}
        children.append(processes.Child("-c", code, env=variables | own))
    for rank, child in enumerate(children):
        _, errors = child.communicate()
        assert child.returncode == 1
        last = errors.strip().splitlines()[-1]
        assert f"ProcessGroupError: rank {rank} of 2 could not join the others" in last
        assert "all 2 processes were started" in last

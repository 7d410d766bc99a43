"""A step finds the memory that the one before has freed, whatever the process did before."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")

# Whether so many MiB come from the heap, which is kept, or are mapped and given back; then the
# faults of pages in steps that make and free some tensors.
TOLD = """
import resource, sys, torch
from torch import nn
import functrain as ft

def from_heap(size):
    address = torch.empty(size << 20, dtype=torch.uint8).data_ptr()
    line, = [each for each in open("/proc/self/maps") if each.endswith("[heap]\\n")]
    start, end = (int(each, 16) for each in line.split()[0].split("-"))
    return start <= address < end

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        made = [torch.ones(count << 18) for count in (3, 5, 7, 2)]
        del made
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = from_heap(10)
torch.use_deterministic_algorithms(True)  # which fills new tensors, and so touches their pages
ft.program(nn.Linear(2, 1), lambda model, batch: model(batch).mean(), ft.optim.SGD(lr=0.1))
faults()
print(int(before), int(from_heap(30)), faults())
"""


def page_faults(**environment: str) -> list[int]:
    bare = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, "-c", TOLD]
    ended = subprocess.run(command, env=bare | environment, capture_output=True, check=True)
    return [int(each) for each in ended.stdout.split()]


@pytest.mark.row(50)
def test_memory_that_is_freed_is_kept_once_there_is_a_program() -> None:
    before, after, faults = page_faults()
    assert (before, after) == (0, 1)
    assert faults < 100


@pytest.mark.long
def test_what_the_environment_says_holds() -> None:
    before, after, faults = page_faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert (before, after) == (0, 0)
    assert faults > 1000

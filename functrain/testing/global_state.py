"""The global state of the process, which a pure function neither changes nor reads."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import torch

from functrain import tree

# Set by torch's compiler (paths of its caches) and by pytest (the current test).
_NOTED_DOWN = ("TORCHINDUCTOR_", "_TORCHINDUCTOR_", "TRITON_", "PYTEST_")


@attrs.frozen
class Setting:
    """A piece of global state, with functions that read and restore it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    is_generator: bool = False


def settings() -> list[Setting]:
    """Return all pieces of global state that are watched."""
    return [*generators(), *_of_torch(), *_of_the_process()]


def generators() -> list[Setting]:
    """Return the global random generators, including CUDA's and NumPy's if in use."""
    found = [
        Setting(
            "torch's global generator",
            torch.default_generator.get_state,
            torch.default_generator.set_state,
            True,
        )
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index, each in enumerate(torch.cuda.default_generators):
            name = f"torch's global generator of cuda:{index}"
            found.append(Setting(name, each.get_state, each.set_state, True))
    found.append(
        Setting("random's global generator", random.getstate, random.setstate, is_generator=True)
    )
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        read, write = numpy.random.get_state, numpy.random.set_state
        found.append(Setting("NumPy's global generator", read, write, True))
    return found


def capture() -> dict[str, Any]:
    """Return the current values by name."""
    return {setting.name: setting.read() for setting in settings()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Describe the differences between two captures."""
    drawn = {setting.name for setting in generators()}
    found = []
    for name, value in before.items():
        if name not in after or _same(value, after[name]):
            continue
        if name in drawn:
            found.append(f"{name} was advanced")
        else:
            found.append(f"{name} was changed{_from_to(value, after[name])}")
    return found


def restore(values: dict[str, Any]) -> None:
    """Restore captured values."""
    for setting in settings():
        if setting.name in values:
            setting.write(values[setting.name])


@contextlib.contextmanager
def preserved() -> Iterator[dict[str, Any]]:
    """Restore the global state after a ``with`` block."""
    before = capture()
    try:
        yield before
    finally:
        restore(before)


def seed(seeds: Mapping[str, int]) -> None:
    """Seed the global generators of torch, ``random`` and, if in use, NumPy."""
    torch.manual_seed(seeds["torch"])
    random.seed(seeds["random"])
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seeds["numpy"])


@contextlib.contextmanager
def another_zone() -> Iterator[None]:
    """Use a time zone with another date and the other half of the day, where the system can."""
    before, now = os.environ.get("TZ"), time.localtime()
    hours = 12 if now.tm_hour >= 12 else -12
    east = now.tm_gmtoff // 60 + 60 * hours
    os.environ["TZ"] = f"OTHER{'-' if east > 0 else '+'}{abs(east) // 60}:{abs(east) % 60:02}"
    _reread_zone()
    try:
        yield
    finally:
        del os.environ["TZ"]
        os.environ.update({} if before is None else {"TZ": before})
        _reread_zone()


def _reread_zone() -> None:
    if hasattr(time, "tzset"):
        time.tzset()


def _of_torch() -> list[Setting]:
    algorithms = "torch's choice of deterministic algorithms"
    precision = "torch's float32 matmul precision"
    return [
        Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Setting("torch's grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        Setting(
            algorithms,
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        Setting(precision, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        Setting(
            "autocast on the CPU",
            functools.partial(torch.is_autocast_enabled, "cpu"),
            functools.partial(torch.set_autocast_enabled, "cpu"),
        ),
        *map(_of_cudnn, ("deterministic", "benchmark")),
    ]


def _of_cudnn(name: str) -> Setting:
    # Not through `torch.backends.cudnn`, which may refuse (`disable_global_flags`).
    read, write = (getattr(torch._C, f"_{verb}_cudnn_{name}") for verb in ("get", "set"))
    return Setting(f"cudnn.{name}", read, write)


def _of_the_process() -> list[Setting]:
    return [
        Setting("the working directory", os.getcwd, os.chdir),
        Setting("the environment", _environment, _set_environment),
    ]


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(_NOTED_DOWN)}


def _set_environment(values: dict[str, str]) -> None:
    present = _environment()
    for name in present.keys() - values.keys():
        del os.environ[name]
    os.environ.update({name: v for name, v in values.items() if present.get(name) != v})


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return tree.equal(first, second)
    if isinstance(first, tuple):  # NumPy's state has an array in it
        return repr(first) == repr(second) and all(map(_same, first, second))
    if type(first).__module__ == "numpy":
        return bool((first == second).all())
    return bool(first == second)


def _from_to(before: Any, after: Any) -> str:
    if not isinstance(before, dict):
        return f" from {before!r} to {after!r}"
    differing = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    return f": {', '.join(differing)}"

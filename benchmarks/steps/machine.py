"""The machine and the versions behind the figures."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    *("functrain", "torch", "lightning", "pytorch-ignite", "accelerate"),
    *("torchopt", "jax", "optax", "numpy"),
)


def describe(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return date, processor, memory, system and versions of packages, each with its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "Date": str(datetime.date.today()),
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.0f} GiB",
        "System": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}, "
        f"Python {platform.python_version()}",
        "Versions": ", ".join(versions(packages)),
    }


def versions(packages: Sequence[str]) -> list[str]:
    """Return names and versions of those packages that are installed."""
    return [
        f"{name} {metadata.version(name)}"
        for name in packages
        if any(True for _ in metadata.distributions(name=name))
    ]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

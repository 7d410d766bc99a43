"""Time optimizers alone: kernels and compiled rules against the forms of torch.optim.

    python benchmarks/optimizers.py [--repeats 15] [--threads 1] [--compiled] [--only AdamW ...]

About 30 million float32 parameters in 150 leaves (12 small matrices for Muon, whose time goes into
its iterations). One process, interleaved, minimum of repeats, in ms; the ratio is to the fastest of
torch's forms of the same optimizer, lower is better.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import functrain as ft

Update = Callable[[], None]
Leaves = dict[str, Tensor]
NAMES = (
    *("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Adamax"),
    *("Adafactor", "Muon", "Lion", "LAMB", "ScheduleFreeSGD", "ScheduleFreeAdamW"),
)
WARM_UP = 8  # RAdam does less in its first updates
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}}


def leaves(name: str, quick: bool) -> Leaves:
    if quick or name == "Muon":
        return {f"matrix{i}": torch.randn(192, 192) for i in range(12)}
    matrices = {f"layer{i}.weight": torch.randn(768, 768) for i in range(50)}
    vectors = {f"layer{i}.{kind}": torch.randn(768) for i in range(50) for kind in ("bias", "gain")}
    return {**matrices, **vectors}


def of_torch(name: str, form: dict[str, bool], params: Leaves, grads: Leaves) -> Update:
    """Build one form of the class, which may refuse its options."""
    own = [torch.nn.Parameter(param.clone()) for param in params.values()]
    for param, grad in zip(own, grads.values(), strict=True):
        param.grad = grad
    optimizer = getattr(torch.optim, name)(own, lr=1e-3, **OPTIONS.get(name, {}), **form)
    return lambda: optimizer.step() and None


def kernel(optimizer: Any, params: Leaves, grads: Leaves) -> Update:
    own = {path: param.clone() for path, param in params.items()}
    state = optimizer.init(own)
    return lambda: optimizer.update_(grads, state, own, 1e-3)


def compiled(optimizer: Any, params: Leaves, grads: Leaves) -> Update:
    """Compile the rule as one graph that writes its results over the inputs."""
    torch._dynamo.reset()
    own = {path: param.clone() for path, param in params.items()}
    state, lr = optimizer.init(own), torch.tensor(1e-3)

    @torch.compile(fullgraph=True, dynamic=False)
    def advance(grads: Leaves, state: Any, own: Leaves, lr: Tensor) -> None:
        after, after_state = optimizer.update(grads, state, own, lr)
        for path, param in own.items():
            param.copy_(after[path])
        for name, slot in state.items():
            if isinstance(slot, Tensor):
                slot.copy_(after_state[name])
                continue
            for path, value in slot.items():
                value.copy_(after_state[name][path])

    return lambda: advance(grads, state, own, lr)


def contenders(name: str, arguments: argparse.Namespace) -> dict[str, Update]:
    params, grads = leaves(name, arguments.quick), leaves(name, arguments.quick)
    optimizer = getattr(ft.optim, name)(lr=1e-3, **OPTIONS.get(name, {}))
    found: dict[str, Update] = {}
    if hasattr(torch.optim, name):
        found["torch, one by one"] = of_torch(name, _form(name, "foreach", False), params, grads)
        for form in ("foreach", "fused"):
            if form in _arguments(name):
                try:
                    found[f"torch, {form}"] = of_torch(name, {form: True}, params, grads)
                except RuntimeError:
                    continue  # this form does not exist for this device
    found["kernel"] = kernel(optimizer, params, grads)
    if arguments.compiled:
        found["compiled rule"] = compiled(optimizer, params, grads)
    return found


def _form(name: str, form: str, value: bool) -> dict[str, bool]:
    return {form: value} if form in _arguments(name) else {}


def _arguments(name: str) -> Any:
    return getattr(torch.optim, name).__init__.__code__.co_varnames


def measure(updates: dict[str, Update], repeats: int) -> dict[str, float]:
    """Return the least milliseconds of one update of each."""
    least = dict.fromkeys(updates, float("inf"))
    for repeat in range(-WARM_UP, repeats):
        for name, update in updates.items():
            begin = time.perf_counter()
            update()
            if repeat >= 0:
                least[name] = min(least[name], (time.perf_counter() - begin) * 1e3)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few and small leaves")
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    title = f"torch {torch.__version__}, {arguments.threads} thread(s), {arguments.repeats} repeats"
    table = Table("optimizer", "form", "ms", "ratio", title=title)
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        least = measure(contenders(name, arguments), arguments.repeats)
        base = min((ms for form, ms in least.items() if form.startswith("torch")), default=None)
        for form, ms in least.items():
            table.add_row(name, form, f"{ms:.1f}", f"{ms / base:.2f}" if base else "")
        table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()

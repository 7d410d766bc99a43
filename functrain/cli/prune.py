"""``functrain prune``: remove checkpoints by rules, or print which ones would be removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.checkpoint import Checkpoints
from functrain.checkpoint.retention import Best, EverySteps, Rule
from functrain.cli import output
from functrain.errors import ConfigurationError
from functrain.tree.printing import byte_size
from functrain.view import plain_text
from functrain.view.run_checkpoints import (
    CheckpointSummary,
    best_step,
    entries_of,
    is_checkpoint,
    monitored,
    store_of,
)


def prune(
    directory: Path,
    console: Console,
    json: bool,
    dry_run: bool,
    rules: dict[str, Any],
    monitor: str | None,
    mode: str | None,
) -> None:
    """Remove the checkpoints that no rule keeps; a valid one always stays."""
    if is_checkpoint(directory):
        raise ConfigurationError(f"{directory} is a checkpoint; name the run it belongs to")
    store = store_of(directory, **rules, **monitored(directory, monitor, mode))
    if monitor is not None:
        best_step(store.entries(), {"monitor": monitor, "mode": store.mode}, required=True)
    rows = {step: CheckpointSummary.of(store.path(step)) for step in store.steps()}
    going = set(store.prune(dry_run=dry_run))
    freed = sum(rows[step].size for step in going if step in rows)
    reasons = _reasons(store, rows, going)
    if json:
        document = {
            "directory": directory,
            "dry_run": dry_run,
            "removed": sorted(going),
            "kept": [{"step": step, "reason": reason} for step, reason in reasons.items()],
            "bytes_freed": freed,
        }
        output.print_json(document)
        return
    _print(rows, going, reasons, console)
    verb = "would free" if dry_run else "freed"
    console.print(f"{verb} {byte_size(freed)}: {len(going)} of {len(rows)} checkpoints")


def _reasons(
    store: Checkpoints, rows: dict[int, CheckpointSummary], going: set[int]
) -> dict[int, str]:
    entries = entries_of(rows.values())
    kept = [(_named(rule), rule.kept(entries)) for rule in store.rules]
    reasons = {}
    for step in sorted(rows.keys() - going):
        names = dict.fromkeys(name for name, steps in kept if step in steps)
        unread = "not readable, so not pruned" if rows[step].problem else "the newest intact one"
        reasons[step] = ", ".join(names) or unread
    return reasons


def _named(rule: Rule) -> str:
    if isinstance(rule, Best):
        return f"best {rule.metric}"
    return f"every {rule.steps} steps" if isinstance(rule, EverySteps) else "last"


def _print(
    rows: dict[int, CheckpointSummary], going: set[int], reasons: dict[int, str], console: Console
) -> None:
    heads, spare = ("step", "", "size", "why", "metrics"), ("size", "metrics")
    cells = (
        (
            step,
            output.cell("goes", "yellow") if step in going else output.cell("stays", "green"),
            byte_size(row.size),
            "" if step in going else reasons[step],
            row.problem or plain_text.metrics_text(row.metrics),
        )
        for step, row in rows.items()
    )
    right, folded = ("step", "size"), ("why", "metrics")
    output.print_table(console, heads, cells, right=right, folded=folded, spare=spare)

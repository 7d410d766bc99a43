"""What a configuration file of ``functrain train`` says, as typed frozen values."""

from __future__ import annotations

from typing import Any

import attrs

from functrain.early_stopping import EarlyStop
from functrain.ema import EMA


@attrs.frozen(kw_only=True)
class ProgramOptions:
    """Arguments of ``functrain.program`` besides model, loss and optimizer."""

    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    precision: str = "float32"
    ema: EMA | None = None
    nonfinite: str = "raise"
    trainable: list[str] | None = None


@attrs.frozen(kw_only=True)
class FitOptions:
    """Arguments of ``functrain.fit`` that are plain values."""

    until: str | list[str]
    eval_every: str = "1 epoch"
    save_every: str = "1 epoch"


@attrs.frozen(kw_only=True)
class CheckpointOptions:
    """Arguments of ``functrain.Checkpoints`` besides the directory."""

    keep_last: int | None = 3
    keep_best: int = 1
    monitor: str = "loss"
    mode: str = "min"
    keep_every_steps: int | None = None
    keep_every_minutes: float | None = None
    background: bool = False
    share_frozen: bool = True


def _check_threads(instance: Any, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"threads: expected at least 1, or null to leave torch's; came {value}")


@attrs.frozen(kw_only=True)
class RunConfig:
    """A run.

    Objects are given as mappings with ``_target_``, an import path, and keyword arguments (the
    convention of Hydra: ``hydra.utils.instantiate(node, _convert_="all")`` makes the same objects);
    functions as import paths.

    Attributes:
        name: of the run, for people; by default that of the file.
        directory: where it is written, by default ``runs/NAME``.
        seed: root of all randomness.
        threads: torch's threads; ``None`` leaves them.
        model: target that makes the module; called with the seed's random stream.
        loss: import path of ``loss(model, batch)``.
        evaluate: import path of a function used in its place in evaluation.
        data: target that makes the training data.
        eval_data: target, or targets by name.
        optimizer: target that makes the optimizer.
        schedule: a place for a target that ``optimizer`` refers to as ``${schedule}``.
        program: see :class:`ProgramOptions`.
        fit: see :class:`FitOptions`.
        early_stop: rule over the evaluations.
        checkpoints: see :class:`CheckpointOptions`.
        listeners: targets.
        report: import path of a function (program, state) -> text, called at the end.
        generate: import path of a function (program, state, prompt, length, **options) -> text,
            called by ``functrain generate``.
    """

    model: dict[str, Any]
    loss: str
    data: dict[str, Any]
    optimizer: dict[str, Any]
    fit: FitOptions
    name: str = "run"
    directory: str = "runs/run"
    seed: int = 0
    threads: int | None = attrs.field(default=None, validator=_check_threads)
    evaluate: str | None = None
    eval_data: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    program: ProgramOptions = ProgramOptions()
    early_stop: EarlyStop | None = None
    checkpoints: CheckpointOptions = CheckpointOptions()
    listeners: list[dict[str, Any]] = attrs.field(factory=list)
    report: str | None = None
    generate: str | None = None

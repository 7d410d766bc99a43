"""What a configuration file of ``functrain train`` says, as typed frozen values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from functrain.config.kinds import AtLeast, Duration, ImportPath, Target, Targets
from functrain.core.ema import EMA
from functrain.errors import ConfigError
from functrain.training.early_stopping.rules import EarlyStop


@attrs.frozen(kw_only=True)
class CompiledOptions:
    """Arguments of ``functrain.compiled``.

    Attributes:
        mode: a mode of ``torch.compile``, such as ``max-autotune``.
        options: settings of Inductor by name.
        backend: a backend of ``torch.compile``, or ``eager`` for the graph uncompiled.
        directory: where graphs compiled ahead of time are kept.
        fallback: where a step cannot be compiled, warn and run it eagerly.
    """

    mode: str | None = None
    options: dict[str, Any] | None = None
    backend: str = "inductor"
    directory: str | None = None
    fallback: bool = False


@attrs.frozen(kw_only=True)
class SharpnessOptions:
    """Arguments of ``functrain.sharpness_aware``.

    Attributes:
        rho: how far away gradients are taken, in the norm of all parameters together.
        adaptive: measure it relative to the size of each weight.
    """

    rho: float = 0.05
    adaptive: bool = False


@attrs.frozen(kw_only=True)
class ProgramOptions:
    """Arguments of ``functrain.program`` besides model, loss and optimizer; transformations of it.

    Attributes:
        clip_norm: bound on the norm of all gradients together.
        clip_value: bound on each gradient element.
        accumulate: micro-batches in a step.
        precision: of the forward pass; ``bf16`` and ``fp16`` are autocast.
        ema: a decay, or a mapping of the options of ``functrain.EMA``.
        nonfinite: what a step with NaN or infinite loss or gradients does.
        trainable: patterns of the paths to train; by default those that require gradients.
        sharpness_aware: sharpness-aware minimization, with its options.
        compiled: the step as one compiled graph: ``true``, or a mapping of options.
        donated: steps consume the state they are given (``fit`` does so by itself where it may).
    """

    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: Annotated[int, AtLeast(1)] = 1
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    ema: float | EMA | None = None
    nonfinite: Literal["raise", "skip", "ignore"] = "raise"
    trainable: str | list[str] | None = None
    sharpness_aware: bool | SharpnessOptions = False
    compiled: bool | CompiledOptions = False
    donated: bool = False


@attrs.frozen(kw_only=True)
class FitOptions:
    """Arguments of ``functrain.fit`` that are plain values.

    Attributes:
        until: a duration (``10 epochs``, ``500 steps``), or several of which the first ends it.
        eval_every: how often the evaluation sets are.
        save_every: how often a checkpoint is written.
        resume: ``true`` goes on from the newest checkpoint, ``false`` refuses a directory that has
            any; ``best``, a step or the path of a checkpoint or run go on from there.
        restore_best: end with the best weights instead of the last.
        schedule_end: beyond the end of the learning rate schedule, ``keep`` its last rate,
            ``stretch`` the curve to the run's new length, or ``restart`` it for what remains.
    """

    until: Duration | list[Duration]
    eval_every: Duration = "1 epoch"
    save_every: Duration = "1 epoch"
    resume: bool | int | str = True
    restore_best: bool = False
    schedule_end: Literal["keep", "stretch", "restart"] | None = None


@attrs.frozen(kw_only=True)
class CheckpointOptions:
    """Arguments of ``functrain.Checkpoints`` besides the directory.

    Attributes:
        keep_last: so many of the newest are kept; ``null`` keeps all.
        keep_best: so many of the best are kept besides.
        monitor: the metric that says what is best, such as ``eval/ema/accuracy``.
        mode: whether less or more of it is better; by default as the metric or its name says.
        keep_every_steps: each one at a multiple of so many steps is kept for good.
        keep_every_minutes: one in so many minutes is kept for good.
        keep: targets of further rules, see ``functrain.checkpoint.retention``.
        background: write while the next steps are made.
        share_frozen: write tensors that never change once.
    """

    keep_last: Annotated[int, AtLeast(1)] | None = 3
    keep_best: Annotated[int, AtLeast(0)] = 1
    monitor: str = "loss"
    mode: Literal["min", "max"] | None = None
    keep_every_steps: Annotated[int, AtLeast(1)] | None = None
    keep_every_minutes: float | None = None
    keep: list[Target] = attrs.field(factory=list)
    background: bool = False
    share_frozen: bool = True


@attrs.frozen(kw_only=True)
class WeightsOptions:
    """Weights to begin with; optimizer, counters and all else are fresh.

    Attributes:
        path: a run directory, a checkpoint, a safetensors file, or a ``state_dict`` by torch.save.
        weights: of a checkpoint, the raw ones or the averaged.
        only: patterns of the names to take; the model keeps its own values of the others.
    """

    path: str
    weights: Literal["params", "ema"] = "params"
    only: str | list[str] | None = None


def _distinct(_: Any, attribute: attrs.Attribute[Any], value: list[int] | None) -> None:
    if value is not None and (not value or len(set(value)) < len(value)):
        raise ConfigError(f"expected different numbers, at least one, got {value}", attribute.name)


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
        seeds: several; each has a run of its own in ``DIRECTORY/seed-N``, with ``seed`` set to it.
        threads: torch's threads; ``null`` leaves them.
        device: where the model is made, such as ``cuda``; by default where its target makes it.
        matmul_precision: ``torch.set_float32_matmul_precision``: ``high`` allows TF32.
        import_from: folders that import paths reach besides the file's own and the present one.
        model: target that makes the module; called with the seed's random stream.
        init_from: a path of weights to begin with, or a mapping of options.
        loss: import path of ``loss(model, batch)``, or a target with ``_partial_: true``.
        evaluate: the same for a function used in its place in evaluation.
        data: target that makes the training data.
        eval_data: target, or targets by name; of data or of ``functrain.Evaluation``.
        optimizer: target that makes the optimizer.
        schedule: a place for a target that ``optimizer`` refers to as ``${schedule}``.
        program: precision, clipping, averages, transformations.
        fit: how long, how often evaluated and saved.
        early_stop: options of ``functrain.EarlyStop``, a target of another rule, or several.
        checkpoints: what is kept, and what is best.
        listeners: targets, as a list or by name; one that takes ``program`` is given the program.
        report: import path of a function (program, state) -> text, called at the end.
        generate: import path of a function (program, state, prompt, length, **options) -> text,
            called by ``functrain generate``. One with a parameter ``stream`` is given
            ``stream=True``, and may return an iterator of pieces of what it adds.
    """

    model: Target
    loss: ImportPath | Target
    data: Target
    optimizer: Target
    fit: FitOptions
    name: str = "run"
    directory: str = "runs/run"
    seed: int = 0
    seeds: list[int] | None = attrs.field(default=None, validator=_distinct)
    threads: Annotated[int, AtLeast(1)] | None = None
    device: str | None = None
    matmul_precision: Literal["highest", "high", "medium"] | None = None
    import_from: list[str] = attrs.field(factory=list)
    init_from: str | WeightsOptions | None = None
    evaluate: ImportPath | Target | None = None
    eval_data: Targets | None = None
    schedule: Target | None = None
    program: ProgramOptions = ProgramOptions()
    early_stop: EarlyStop | Target | list[EarlyStop | Target] | None = None
    checkpoints: CheckpointOptions = CheckpointOptions()
    listeners: list[Target] | dict[str, Target | None] | None = attrs.field(factory=list)
    report: ImportPath | None = None
    generate: ImportPath | None = None

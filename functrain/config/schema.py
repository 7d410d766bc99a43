"""The configurations of ``functrain train`` and ``functrain search`` as typed frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

import attrs

from functrain.config.conversion import AtLeast, Described
from functrain.core.ema import EMA, SWA
from functrain.distributed.placement import Placement
from functrain.errors import ConfigError, ConfigurationError
from functrain.errors.paths import expanded
from functrain.training.early_stopping.rules import EarlyStop

# A mapping with ``_target_``; one of these, or several by name.
Target: TypeAlias = Annotated[dict[str, Any], Described("target", "a mapping with _target_")]
Targets: TypeAlias = Annotated[dict[str, Any], Described("targets", "a mapping with _target_")]
ImportPath: TypeAlias = Annotated[str, Described("import_path", "an import path")]
_OF_MODEL = ("model", "loss", "optimizer")
Duration: TypeAlias = Annotated[str, Described("duration", "a duration such as '10 epochs'")]


@attrs.frozen(kw_only=True)
class CompiledOptions:
    """Arguments of ``functrain.compiled``.

    Attributes:
        mode: a mode of ``torch.compile``, such as ``max-autotune``.
        options: settings of Inductor by name.
        backend: a backend of ``torch.compile``, or ``eager`` for the graph uncompiled.
        directory: the directory of graphs that are compiled ahead of time.
        fallback: if a step cannot be compiled, warn and run it eagerly.
        update: by the optimizer's ``kernel``, or its rule compiled as a ``graph``.
    """

    mode: str | None = None
    options: dict[str, Any] | None = None
    backend: str = "inductor"
    directory: str | None = None
    fallback: bool = False
    update: Literal["kernel", "graph"] = "kernel"


@attrs.frozen(kw_only=True)
class SharpnessOptions:
    """Arguments of ``functrain.sharpness_aware``.

    Attributes:
        rho: distance at which gradients are computed, in the norm of all parameters together.
        adaptive: scale the distance by the size of each weight.
    """

    rho: float = 0.05
    adaptive: bool = False


@attrs.frozen(kw_only=True)
class ProgramOptions:
    """Arguments of ``functrain.program`` except model, loss and optimizer, and transformations.

    Attributes:
        clip_norm: bound on the norm of all gradients together.
        clip_value: bound on each gradient element.
        accumulate: micro-batches per step.
        precision: of the forward pass; all but ``float32`` are autocast.
        ema: a decay, or a mapping of the options of ``functrain.EMA`` or ``functrain.SWA``.
        nonfinite: action of a step with NaN or infinite loss or gradients.
        trainable: patterns of the paths to train; by default those that require gradients.
        eval_gradients: evaluate with gradients, for a loss that differentiates by itself.
        detect_anomaly: name the module and the operation of the first NaN or infinity.
        random: generators of Python and NumPy to seed in each step, ``python`` or ``numpy``.
        sharpness_aware: sharpness-aware minimization, with its options.
        parts: into how many parts each batch is cut; as many processes may train, all with the
            same result (``functrain.sharded``).
        buffers: rules by pattern for buffers that forwards change, ``mean``, ``sum`` or ``first``;
            only with ``parts``.
        compiled: the step as one compiled graph: ``true``, or a mapping of options.
        donated: steps consume their input state (``fit`` enables this itself where possible).
    """

    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: Annotated[int, AtLeast(1)] = 1
    precision: Literal["float32", "bf16", "fp16", "bfloat16", "float16"] = "float32"
    ema: float | EMA | SWA | None = None
    nonfinite: Literal["raise", "skip", "ignore"] = "raise"
    trainable: str | list[str] | None = None
    eval_gradients: bool = False
    detect_anomaly: bool = False
    random: list[Literal["python", "numpy"]] = attrs.field(factory=list)
    sharpness_aware: bool | SharpnessOptions = False
    parts: Annotated[int, AtLeast(1)] | None = None
    buffers: dict[str, Literal["mean", "sum", "first"]] | None = None
    compiled: bool | CompiledOptions = False
    donated: bool = False


@attrs.frozen(kw_only=True)
class PopulationOptions:
    """Arguments of ``functrain.population``.

    Attributes:
        hyperparameters: by path, such as ``lr`` or ``weight_decay``, a list with a value, or the
            target of a schedule, for each member.
        seeds: one for each member, or one for all; by default 0, 1, 2, ...
        batches: ``shared``, or ``own`` where the data gives a batch for each member.
        chunk_size: how many members are computed at once.
    """

    hyperparameters: dict[str, Any] = attrs.field(factory=dict)
    seeds: list[int] | int | None = None
    batches: Literal["shared", "own"] = "shared"
    chunk_size: Annotated[int, AtLeast(2)] | None = None


@attrs.frozen(kw_only=True)
class FitOptions:
    """Arguments of ``functrain.fit`` that are plain values.

    Attributes:
        until: a duration (``10 epochs``, ``500 steps``), or several; the first one ends the run.
        eval_every: interval of evaluations.
        save_every: interval of checkpoints.
        resume: ``true`` resumes from the newest checkpoint, ``false`` rejects a directory with
            checkpoints; ``best``, a step, or the path of a checkpoint or run resume from there.
        restore_best: end with the best weights instead of the last ones.
        schedule_end: beyond the end of the learning rate schedule, ``keep`` its last rate,
            ``stretch`` the curve to the new length of the run, or ``restart`` it for the rest.
        sanity_batches: batches of each evaluation set to evaluate before the first step.
        limit_train_batches: for a quick try, batches in an epoch, at most.
        limit_eval_batches: batches of each evaluation set, at most.
    """

    until: Duration | list[Duration]
    eval_every: Duration = "1 epoch"
    save_every: Duration = "1 epoch"
    resume: bool | int | str = True
    restore_best: bool = False
    schedule_end: Literal["keep", "stretch", "restart"] | None = None
    sanity_batches: Annotated[int, AtLeast(0)] = 0
    limit_train_batches: Annotated[int, AtLeast(1)] | None = None
    limit_eval_batches: Annotated[int, AtLeast(1)] | None = None


@attrs.frozen(kw_only=True)
class CheckpointOptions:
    """Arguments of ``functrain.Checkpoints`` except the directory.

    Attributes:
        keep_last: number of newest checkpoints to keep; ``null`` keeps all.
        keep_best: number of best checkpoints to keep in addition.
        monitor: metric that determines the best, such as ``eval/ema/accuracy``.
        mode: whether the minimum or the maximum is best; by default from the metric or its name.
        keep_every_steps: keep each checkpoint at a multiple of this number of steps.
        keep_every_minutes: keep one checkpoint in this number of minutes.
        keep: targets of further rules, see ``functrain.checkpoint.retention``.
        background: write during the next steps.
        share_frozen: write tensors that never change only once.
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
    """Initial weights; optimizer, counters and everything else are new.

    Attributes:
        path: a run directory, a checkpoint, a safetensors file, or a ``state_dict`` by torch.save.
        weights: those of a checkpoint that were evaluated or trained, or their average.
        program: whose weights, in a checkpoint of several programs.
        only: patterns of the model's names to load; it keeps its own values of the others.
        rename: beginnings of names there, each with that of the name in the model.
    """

    path: str
    weights: Literal["params", "trained", "ema"] = "params"
    program: str | None = None
    only: str | list[str] | None = None
    rename: dict[str, str] | None = None


@attrs.frozen(kw_only=True)
class PartConfig:
    """A program of a run: the only one, or one that ``step`` trains with others.

    Attributes:
        model: target that creates the module, called with the random stream of the seed.
        loss: import path of ``loss(model, batch)``, or a target with ``_partial_: true``.
        optimizer: target that creates the optimizer.
        init: import path of ``init(seed)``, with ``step`` instead of a model
            (``functrain.custom``): a replay memory, an environment, a queue.
        step: import path of ``step(tree, batch, rng)``.
        evaluate: the same as ``loss`` for a function that replaces it in ``eval_step``.
        schedule: a target to which ``optimizer`` refers as ``${schedule}``.
        init_from: path of initial weights, or a mapping of options.
        program: precision, clipping, averages, transformations.
    """

    model: Target | None = None
    loss: ImportPath | Target | None = None
    optimizer: Target | None = None
    init: ImportPath | Target | None = None
    step: ImportPath | Target | None = None
    evaluate: ImportPath | Target | None = None
    schedule: Target | None = None
    init_from: str | WeightsOptions | None = None
    program: ProgramOptions = ProgramOptions()

    def __attrs_post_init__(self) -> None:
        """Check that the keys are those of one kind of program."""
        of_tree = self.init is not None or self.step is not None
        needed = ("init", "step") if of_tree else _OF_MODEL
        self._check_given(needed)
        for field in attrs.fields(PartConfig) if of_tree else ():
            own = field.name in (*needed, "evaluate")
            if not own and getattr(self, field.name) != field.default:
                raise ConfigError("has no effect with init and step", field.name)

    def _check_given(self, names: Iterable[str]) -> None:
        for name in names:
            if getattr(self, name) is None:
                raise ConfigError("missing", name)


def _place(text: str) -> str:
    """Return the path of a directory; an unset variable of the shell is none."""
    try:
        return str(expanded(text))
    except ConfigurationError as error:
        raise ConfigError(str(error), "directory") from error


def _named(_: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    if not value:  # the directory would be the one of all runs
        raise ConfigError('expected a name, got ""', attribute.name)


def _distinct(_: Any, attribute: attrs.Attribute[Any], value: list[int] | None) -> None:
    if value is not None and (not value or len(set(value)) < len(value)):
        raise ConfigError(f"expected different numbers, at least one, got {value}", attribute.name)


@attrs.frozen(kw_only=True)
class RunConfig(PartConfig):
    """A run.

    Objects are mappings with ``_target_``, an import path, and keyword arguments (the convention
    of Hydra: ``hydra.utils.instantiate(node, _convert_="all")`` creates the same objects).
    Functions are import paths.

    Attributes:
        name: display name of the run; by default that of the file.
        directory: run directory, by default ``runs/NAME``.
        seed: root of all randomness.
        seeds: several seeds; each has its own run in ``DIRECTORY/seed-N`` with this ``seed``.
        threads: number of threads of torch; ``null`` keeps the default.
        device: device of the model, such as ``cuda``; by default the one its target chooses.
        matmul_precision: ``torch.set_float32_matmul_precision``: ``high`` allows TF32.
        import_from: folders for import paths, besides those of the file and of the process.
        programs: several programs by name, each with model, loss and optimizer of its own, which
            ``step`` trains together (``functrain.joint``).
        step: import path of ``step(programs, states, batch, rng)``; with ``init`` instead of
            ``programs`` that of ``step(tree, batch, rng)`` (``functrain.custom``).
        init: import path of ``init(seed)``, which returns the tree of such a step.
        data: target that creates the training data.
        eval_data: target, or targets by name, of data or ``functrain.Evaluation``.
        population: members with hyperparameters and seeds of their own, trained by one step.
        placement: where several processes keep the state; only with ``program.parts``.
        fit: length of the run, and intervals of evaluations and checkpoints.
        early_stop: options of ``functrain.EarlyStop``, a target of another rule, or several.
        checkpoints: retention and the metric of the best checkpoint.
        listeners: targets, as a list or by name; a parameter ``program`` receives the program.
        report: import path of a function (program, state) -> text, called at the end.
        generate: import path of a function (program, state, prompt, length, **options) -> text,
            called by ``functrain generate``. A parameter ``stream`` receives ``True``; then the
            function may return an iterator over pieces of the added text.
    """

    data: Target
    fit: FitOptions
    programs: dict[str, PartConfig] | None = None
    name: str = attrs.field(default="run", validator=_named)
    directory: str = attrs.field(default="runs/run", converter=_place)
    seed: int = 0
    seeds: list[int] | None = attrs.field(default=None, validator=_distinct)
    threads: Annotated[int, AtLeast(1)] | None = None
    device: str | None = None
    matmul_precision: Literal["highest", "high", "medium"] | None = None
    import_from: list[str] = attrs.field(factory=list)
    eval_data: Targets | None = None
    population: PopulationOptions | None = None
    placement: Placement = attrs.field(factory=Placement)
    early_stop: EarlyStop | Target | list[EarlyStop | Target] | None = None
    checkpoints: CheckpointOptions = CheckpointOptions()
    listeners: list[Target] | dict[str, Target | None] | None = attrs.field(factory=list)
    report: ImportPath | None = None
    generate: ImportPath | None = None

    def __attrs_post_init__(self) -> None:
        """Check that the keys are those of one kind of program."""
        own = [name for name in ("programs", "step", "init") if getattr(self, name) is not None]
        if not own:
            self._check_given(_OF_MODEL)
        elif self.step is None:
            raise ConfigError(f"missing; {own[0]} needs a function that makes a step", "step")
        elif len(own) != 2:
            raise ConfigError("expected either programs or init, with step", "step")
        for name in (*_OF_MODEL, "init_from", "population") if own else ():
            if getattr(self, name) is not None:
                raise ConfigError(f"has no effect with {own[0]} and step", name)


@attrs.frozen(kw_only=True)
class SearchConfig:
    """A search; see :func:`functrain.search.search` for the other options.

    Attributes:
        base: the source for ``functrain train``: an example, or a YAML file relative to this one.
        overrides: overrides of the base, for all trials.
        space: parameters by their dotted path in the base.
        name: the name of the search, by default that of the file.
        directory: the directory of the search, by default ``runs/NAME``.
        seeds: each trial runs with all of these, by default with ``seeds`` or ``seed`` of the base.
        population: draw so many trials at once; those that differ only in numbers of optimizer,
            schedule, clipping or EMA train as one population.
        halving: ``every``, ``keep`` and ``least`` of successive halving in a population.
    """

    base: str
    space: dict[str, Any]
    metric: str
    name: str = attrs.field(validator=_named)
    directory: str = attrs.field(converter=_place)
    overrides: list[str] = attrs.field(factory=list)
    direction: Literal["minimize", "maximize"] | None = None
    value: Literal["last", "best"] = "last"
    trials: Annotated[int, AtLeast(1)] = 20
    timeout: Duration | None = None
    seeds: list[int] | None = attrs.field(default=None, validator=_distinct)
    sampler: dict[str, Any] | None = None
    pruner: dict[str, Any] | None = None
    population: Annotated[int, AtLeast(1)] = 1
    halving: dict[str, Any] | None = None
    max_failures: Annotated[int, AtLeast(1)] = 5

"""The configurations of ``functrain train`` and ``functrain search`` as typed frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

import attrs

from functrain.config.conversion import AtLeast, Described
from functrain.config.targets import TARGET
from functrain.core.ema import EMA, SWA
from functrain.distributed.placement import Placement
from functrain.errors import ConfigError, ConfigurationError
from functrain.errors.paths import expanded
from functrain.training.early_stopping.rules import EarlyStop

# A mapping with ``_target_``; one of these, or several by name.
Target: TypeAlias = Annotated[dict[str, Any], Described("a mapping with _target_", needs=TARGET)]
Targets: TypeAlias = Annotated[dict[str, Any], Described("a mapping with _target_")]
ImportPath: TypeAlias = Annotated[str, Described("an import path")]
_OF_MODEL = ("model", "loss", "optimizer")
Duration: TypeAlias = Annotated[str, Described("a duration such as '10 epochs'")]


@attrs.frozen(kw_only=True)
class CompiledOptions:
    """Arguments of ``functrain.compiled``."""

    mode: str | None = None
    options: dict[str, Any] | None = None
    backend: str = "inductor"
    directory: str | None = None
    fallback: bool = False
    update: Literal["kernel", "graph"] = "kernel"


@attrs.frozen(kw_only=True)
class SharpnessOptions:
    """Arguments of ``functrain.sharpness_aware``."""

    rho: float = 0.05
    adaptive: bool = False


@attrs.frozen(kw_only=True)
class ProgramOptions:
    """Arguments of ``functrain.program`` except model, loss and optimizer, and transformations.

    ``compiled`` and ``sharpness_aware`` are ``true``, or a mapping of options; ``parts`` and
    ``buffers`` are arguments of ``functrain.sharded``.
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
    """Arguments of ``functrain.population``; a hyperparameter may be the target of a schedule."""

    hyperparameters: dict[str, Any] = attrs.field(factory=dict)
    seeds: list[int] | int | None = None
    batches: Literal["shared", "own"] = "shared"
    chunk_size: Annotated[int, AtLeast(2)] | None = None


@attrs.frozen(kw_only=True)
class FitOptions:
    """Arguments of ``functrain.fit`` that are plain values."""

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
    """Arguments of ``functrain.Checkpoints`` except the directory."""

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
    max_failures: Annotated[int, AtLeast(1)] = 5

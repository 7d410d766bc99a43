"""Failures in making a program and a step."""

from __future__ import annotations

from functrain.errors.base import FunctrainError, FunctrainWarning


class DonatedStateError(FunctrainError, RuntimeError):
    """A state was used after a donated step had consumed it."""

    def __init__(self, name: str = "state") -> None:
        super().__init__(
            f"state.{name} was read, but this TrainState was given to a donated step, which "
            "reuses its memory. Keep the state that the step returned, or take a copy first: "
            "functrain.copy(state)."
        )


class FrozenStateError(FunctrainError, TypeError):
    """A mapping of a state was written to."""

    def __init__(self) -> None:
        super().__init__(
            "a state is a value, and its mappings are read-only. Make another state from it: "
            "attrs.evolve(state, params={**state.params, path: tensor}); dict(state.params) is a "
            "copy that can be written to"
        )


class NotAStateError(FunctrainError, TypeError):
    """A step was given something else in the place of a state."""


class ModelError(FunctrainError, TypeError):
    """The model is not a module, cannot be copied, or is not ready."""


class ParameterMismatchError(FunctrainError, ValueError):
    """Names or shapes of given tensors do not fit the model, or a state is of another program."""

    def __init__(self, what: str, problems: list[str]) -> None:
        self.problems = problems
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{what}:\n{listed}")


class LossError(FunctrainError, ValueError):
    """The loss function returned something that cannot be trained on."""


class RandomnessError(FunctrainError, RuntimeError):
    """A step drew random numbers that do not follow from its state."""


class PrecisionError(FunctrainError, ValueError):
    """The precision is not one there is."""


class MicroBatchError(FunctrainError, ValueError):
    """More micro-batches were given to a step than the program accumulates."""

    def __init__(self, got: int, accumulate: int) -> None:
        super().__init__(
            f"{got} micro-batches were given to a step of a program with accumulate={accumulate}. "
            "Give at most that many, or wrap them to say that they are one step: "
            "functrain.MicroBatches([...])."
        )


class PackedBatchError(FunctrainError, TypeError):
    """A batch with a packed sequence in it was to be cut into micro-batches."""

    def __init__(self) -> None:
        super().__init__(
            "a PackedSequence cannot be cut along its samples. Give the step several batches of "
            "the loader, functrain.MicroBatches([...]), or batches of padded sequences and their "
            "lengths, and pack them in the loss."
        )


class BatchSizeError(FunctrainError, ValueError):
    """A number depends on how many samples are in a batch, which the batch does not tell."""

    def __init__(self, purpose: str, reason: str, remedy: str, kind: type | None) -> None:
        super().__init__(
            f"{purpose}, and it is not evident how many there are in this one: {reason}. {remedy}"
            f"{_or_register('its size', 'size', kind)}."
        )


class BatchSplitError(FunctrainError, TypeError):
    """A batch cannot be cut into micro-batches."""

    def __init__(self, reason: str, kind: type | None = None) -> None:
        super().__init__(
            f"this batch cannot be cut into micro-batches: {reason}. Give the step the "
            "micro-batches, functrain.MicroBatches([...]), as fit does"
            f"{_or_register('how it is cut', 'split', kind)}."
        )


class BatchCopyError(FunctrainError, TypeError):
    """An object with tensors in a batch cannot be copied for the model."""

    def __init__(self, kind: type, reason: str) -> None:
        super().__init__(
            f"a step hands a copy of its batch to the model, and the {kind.__qualname__} in this "
            f"batch cannot be copied: {reason}. Register what it is made of with "
            "torch.utils._pytree.register_pytree_node, or give the batch as a dict of tensors."
        )


def _or_register(what: str, function: str, kind: type | None) -> str:
    if kind is None:
        return ""
    return f", or register {what}: @functrain.data.{function}.register({kind.__qualname__})"


class SparseGradientError(FunctrainError, TypeError):
    """A parameter received a sparse gradient."""

    def __init__(self, path: str, layout: object) -> None:
        super().__init__(
            f"parameter {path!r} received a gradient of layout {layout}; functrain's steps take "
            "dense gradients only. Make the layer with sparse=False."
        )


class CheckpointingError(FunctrainError, RuntimeError):
    """The model uses reentrant activation checkpointing."""

    def __init__(self) -> None:
        super().__init__(
            "the model uses torch.utils.checkpoint with use_reentrant=True, which cannot give "
            "gradients as values (it writes them into .grad). Pass use_reentrant=False: the same "
            "memory is saved, and torch recommends it."
        )


class NonFiniteError(FunctrainError, FloatingPointError):
    """Loss or gradients of a step were NaN or infinite, and the program's policy is to raise."""

    def __init__(self, step: int, loss: float, culprits: list[str]) -> None:
        self.step = step
        self.culprits = culprits
        named = ", ".join(culprits[:8]) + (", ..." if len(culprits) > 8 else "")
        where = (
            f"non-finite gradients in {len(culprits)} leaves: {named}"
            if culprits
            else "every gradient is finite by itself, but their common norm or the loss is not"
        )
        super().__init__(
            f"step {step}: the loss is {loss} and the update was not made ({where}). The state "
            "given to train_step is unchanged. Lower the learning rate, clip gradients "
            '(clip_norm=1.0), or choose nonfinite="skip".'
        )


class WeightsError(FunctrainError, ValueError):
    """eval_step was asked for weights that the state does not hold."""


class ConfigurationError(FunctrainError, ValueError):
    """A value given to a constructor makes no sense."""


class EmptyBatchWarning(FunctrainWarning):
    """A batch without samples was passed over."""


class NonFiniteWarning(FunctrainWarning):
    """A run ended because of a non-finite loss or gradient."""

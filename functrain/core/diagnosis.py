"""Explain why a step failed: its state is of another program, or the user's code raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo.eval_frame import get_eval_frame_callback

from functrain.core import step
from functrain.core.batch import Batch
from functrain.core.forward_errors import explain_forward, explain_out_of_memory
from functrain.core.precision import is_lending
from functrain.core.recipe import Fixed
from functrain.core.state import TrainState
from functrain.errors import FunctrainWarning, UnsupportedError
from functrain.errors.base import warn
from functrain.tree.containers import tensors

_ONE_STEP = "state, metrics = program.train_step(state, batch), which is the whole step"
_WEIGHTS = "state.params; functrain.save(path, state) writes a file"
_MODEL = "with program.evaluating(state) as model: model(x)"
# Names that users of other libraries look for on a program, and the call that stands for each.
PROGRAM_ATTRIBUTES = {
    **dict.fromkeys(("zero_grad", "step", "backward", "training_step", "train"), _ONE_STEP),
    **dict.fromkeys(("state_dict", "parameters", "named_parameters", "save"), _WEIGHTS),
    **dict.fromkeys(("model", "forward", "predict", "apply"), _MODEL),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), "program.init(device=...)"),
    "load_state_dict": "program.init(params=...), or functrain.load(path, like=state)",
    "eval": "program.eval_step(state, batch)",
    "validation_step": "program.eval_step(state, batch)",
    "fit": 'functrain.fit(program, data, until="10 epochs")',
    "evaluate": "functrain.evaluate(program, state, data)",
    "compile": "functrain.compiled(program)",
    "optimizer": "program.recipe.optimizer",
    "loss": "program.recipe.loss",
}


def not_a_state(given: object, batch: object, expected: str = "TrainState") -> UnsupportedError:
    """Return the error for a value that is not a state of the class ``expected``."""

    def is_one(value: object) -> bool:
        return type(value).__name__ == expected

    if isinstance(given, tuple) and given and is_one(given[0]):
        hint = "train_step returns two values: state, metrics = program.train_step(state, batch)"
    elif is_one(batch):
        hint = "the state comes first, the batch second"
    elif is_one(getattr(given, "state", None)):  # what fit returns
        hint = "give its state, run.state"
    else:
        hint = "begin with state = program.init(seed=0)"
    return UnsupportedError(f"expected a {expected}, got a {type(given).__name__}: {hint}")


def refuse_members(state: TrainState) -> None:
    """Refuse the state of a population, whose tensors would broadcast into numbers of no member."""
    if state.counters.skipped.ndim:
        raise UnsupportedError(
            "expected the state of one program, got that of a population. Take a member out, "
            "pop.member(state, i), for the program of that member, pop.programs[i]; or give the "
            "state to pop.train_step or pop.eval_step"
        )


def refuse_other_model(fixed: Fixed, state: TrainState) -> None:
    """Refuse parameters of other names or shapes, with which many layers would compute, too."""
    expected, given = fixed.model.params, state.params
    found = _shapes(given) if isinstance(given, Mapping) else None
    if found != _shapes(expected):
        from functrain.core.fitting_state import check_params

        check_params(fixed, state)


def warn_of_autocast(fixed: Fixed) -> None:
    """Warn of an autocast around the steps of a program in float32, which has no effect on them."""
    if is_lending.get():  # then it may be that of another program, which is no mistake
        return
    if fixed.recipe.precision == "float32" and torch._C._is_any_autocast_enabled():
        warn(
            "torch.autocast is on around train_step and has no effect on it: the program computes "
            'in float32. For mixed precision make it with functrain.program(..., precision="bf16")',
            FunctrainWarning,
        )


def _shapes(params: Mapping[str, Any]) -> dict[str, Any]:
    return {path: getattr(one, "shape", None) for path, one in params.items()}


def refuse_derivatives(called: str, state: TrainState, batch: Batch) -> None:
    """Refuse tensors that ``torch.func`` differentiates: without a graph it would find zeros."""
    if torch._C._functorch.peek_interpreter_stack() is None:
        return
    if any(map(_is_differentiated, tensors([step.device_state(state), batch]))):
        raise UnsupportedError(
            f"{called} was called below torch.func.grad, jacrev or jvp, and its results have no "
            "derivatives. Those of functrain.differentiable(program, {}) have them"
        )


def _is_differentiated(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def refuse_compile() -> None:
    """Refuse a step below the user's ``torch.compile``, which compiles functrain's host part.

    Raises:
        UnsupportedError: the step is below one.
    """
    # The first is true while Dynamo traces this; it then runs the frame, and the second is.
    if torch.compiler.is_dynamo_compiling() or get_eval_frame_callback():
        raise UnsupportedError(
            "train_step was called below torch.compile. functrain.compiled(program).train_step is "
            "one compiled graph: call it from Python that is not compiled"
        )


def refuse_vmap(device_step: step.DeviceStep) -> None:
    """Refuse an eager step below ``torch.func.vmap``, where autograd and kernels do not work."""
    transform = torch._C._functorch.peek_interpreter_stack()
    if transform is None or not step.is_eager(device_step):
        return
    if transform.key() == torch._C._functorch.TransformType.Vmap:
        raise UnsupportedError(
            "train_step was called below torch.func.vmap. Train many states by one step as a "
            "population: pop = functrain.population(program, seeds=[...]); state = "
            "pop.stacked([state, ...]); pop.train_step(state, batch)"
        )


def explain_step(
    error: Exception, fixed: Fixed, state: TrainState, step: int, parts: list[Batch]
) -> None:
    """Explain an error of a step as far as that is possible; the caller raises it.

    Raises:
        ParameterMismatchError: the state has other tensors than those that the program makes.
        UnsupportedError: they have no values, or torch does not train them.
    """
    # Here, because steps are imported without what only a failed one needs.
    from functrain.core.fitting_state import explain_mismatch

    explain_mismatch(error, fixed, state)
    if parts:
        explain_out_of_memory(error, step, parts)
        explain_forward(error, fixed.model.module, f"in the step after step {step}", parts[0])

"""Private parts of torch that say what a tensor is, and in what surroundings code runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._dynamo.eval_frame import get_eval_frame_callback

_functorch = torch._C._functorch


def is_below_func() -> bool:
    """Return whether this code runs below a transformation of ``torch.func``."""
    return _functorch.peek_interpreter_stack() is not None


def is_below_vmap() -> bool:
    """Return whether the innermost transformation is ``torch.func.vmap``."""
    transform = _functorch.peek_interpreter_stack()
    return transform is not None and transform.key() == _functorch.TransformType.Vmap


def is_wrapped(tensor: Tensor) -> bool:
    """Return whether a transformation of ``torch.func`` made a tensor, which then has no memory."""
    found: bool = _functorch.is_functorch_wrapped_tensor(tensor)
    return found


def is_differentiated(tensor: Tensor) -> bool:
    """Return whether ``torch.func`` differentiates a tensor."""
    while is_wrapped(tensor):
        if _functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def is_below_compile() -> bool:
    """Return whether the user's ``torch.compile`` traces this code, or runs its frame."""
    return torch.compiler.is_dynamo_compiling() or bool(get_eval_frame_callback())


def memory_of(tensor: Tensor) -> int:
    """Return a number of the memory that a tensor is in; one without data has no address."""
    place: int = tensor.untyped_storage()._cdata
    return place

"""Prompts: one row of tokens, or several of any lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from functrain.errors import ConfigurationError

Prompt: TypeAlias = Tensor | Sequence[int]
# One prompt is a tensor [n]; several are a list.
Prompts: TypeAlias = Tensor | Sequence[Prompt]


def prompt_rows(prompts: Prompts) -> list[Tensor]:
    """Convert prompts to int64 rows on the CPU.

    Example:
        >>> prompt_rows([[1, 2], torch.tensor([3])])
        [tensor([1, 2]), tensor([3])]
    """
    if isinstance(prompts, Tensor) and prompts.ndim > 1:
        raise ConfigurationError(
            f"the prompt has shape {list(prompts.shape)}; one prompt is a row [n], several are a "
            "list: list(prompt)"
        )
    several = [prompts] if isinstance(prompts, Tensor) else list(prompts)
    if not several:
        raise ConfigurationError("there is no prompt; give at least one")
    return [_row(prompt, number) for number, prompt in enumerate(several)]


def _row(prompt: Prompt, number: int) -> Tensor:
    try:
        row = torch.as_tensor(prompt).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"prompt {number} is not a row of tokens: {error}") from error
    if row.ndim == 1 and not len(row):
        raise ConfigurationError(f"prompt {number} is empty; give it at least one token")
    if row.ndim != 1:
        raise ConfigurationError(
            f"prompt {number} has shape {list(row.shape)}, expected a row of tokens [n]; one "
            "prompt is given as a tensor, several as a list of rows"
        )
    if row.dtype.is_floating_point or row.dtype.is_complex or row.dtype == torch.bool:
        raise ConfigurationError(
            f"prompt {number} is of {row.dtype}, expected tokens: whole numbers"
        )
    return row.long()

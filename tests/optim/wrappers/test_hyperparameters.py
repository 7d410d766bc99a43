"""Wrappers refuse invalid hyperparameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from functrain.errors import ConfigurationError
from functrain.optim import SGD, from_torch
from functrain.optim.wrappers import (
    AdaptiveGradClip,
    ClipByBlockRms,
    Float32State,
    Lookahead,
)

LAZY = from_torch(torch.optim.SGD, lr=0.1)
REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (Float32State, {"optimizer": SGD}, "optimizer: expected an optimizer"),
    (Float32State, {"optimizer": 0.1}, "optimizer: expected an optimizer"),
    (AdaptiveGradClip, {"clipping": 0}, "clipping: expected a finite number above 0"),
    (AdaptiveGradClip, {"clipping": 0.1, "eps": -1}, "eps: expected a finite number >= 0"),
    (ClipByBlockRms, {"threshold": 0.0}, "threshold: expected a finite number above 0"),
    (ClipByBlockRms, {"threshold": "1"}, "threshold: expected a finite number above 0"),
    (
        ClipByBlockRms,
        {"threshold": torch.ones(2)},
        "threshold: expected a finite number above 0 or a 0-dim tensor, got a tensor",
    ),
    (Lookahead, {"sync_period": 0}, "sync_period: expected an integer >= 1"),
    (Lookahead, {"slow_step_size": -0.5}, "slow_step_size: expected a finite number >= 0"),
    (Lookahead, {"reset_state": 1}, "reset_state: expected True or False"),
    (Lookahead, {"optimizer": LAZY, "reset_state": True}, "reset_state=True needs an optimizer"),
    (Float32State, {"master_weights": None}, "master_weights: expected True or False"),
]


@pytest.mark.parametrize(("cls", "given", "said"), REFUSED)
def test_a_bad_value_is_refused_by_name(cls: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{cls.__name__}: {said}"):
        cls(**{"optimizer": SGD(0.1), **given})

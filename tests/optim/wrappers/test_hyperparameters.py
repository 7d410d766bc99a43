"""What a wrapper refuses to be made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from functrain.errors import ConfigurationError
from functrain.optim import SGD, from_torch
from functrain.optim.wrappers import (
    AdaptiveGradClip,
    AddNoise,
    Centralize,
    ClipByBlockRms,
    Float32State,
    Lookahead,
    SkipLargeUpdates,
)

LAZY = from_torch(torch.optim.SGD, lr=0.1)
REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (Centralize, {"optimizer": SGD}, "optimizer must be an optimizer"),
    (Centralize, {"optimizer": 0.1}, "optimizer must be an optimizer"),
    (AddNoise, {"eta": -0.1}, "eta must be a finite number from 0 up"),
    (AddNoise, {"eta": 0.1, "gamma": float("nan")}, "gamma must be a finite number from 0 up"),
    (AddNoise, {"eta": 0.1, "seed": -1}, "seed must be a whole number from 0 up"),
    (AddNoise, {"eta": 0.1, "seed": 0.5}, "seed must be a whole number from 0 up"),
    (AdaptiveGradClip, {"clipping": 0}, "clipping must be above 0"),
    (AdaptiveGradClip, {"clipping": 0.1, "eps": -1}, "eps must be a finite number from 0 up"),
    (ClipByBlockRms, {"threshold": 0.0}, "threshold must be above 0"),
    (ClipByBlockRms, {"threshold": "1"}, "threshold must be a finite number from 0 up"),
    (ClipByBlockRms, {"threshold": torch.ones(2)}, "threshold must be a number or a tensor"),
    (Lookahead, {"sync_period": 0}, "sync_period must be a whole number from 1 up"),
    (Lookahead, {"slow_step_size": -0.5}, "slow_step_size must be a finite number from 0 up"),
    (Lookahead, {"reset_state": 1}, "reset_state must be True or False"),
    (Lookahead, {"optimizer": LAZY, "reset_state": True}, "reset_state=True needs an optimizer"),
    (SkipLargeUpdates, {"max_norm": 0.0}, "max_norm must be above 0"),
    (SkipLargeUpdates, {"max_norm": float("inf")}, "max_norm must be a finite number"),
    (Float32State, {"master_weights": None}, "master_weights must be True or False"),
]


@pytest.mark.parametrize(("cls", "given", "said"), REFUSED)
def test_a_bad_value_is_refused_by_name(cls: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{cls.__name__}: {said}"):
        cls(**{"optimizer": SGD(0.1), **given})

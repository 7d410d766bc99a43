"""Name code whose random numbers do not follow from its state."""

from __future__ import annotations

import torch

from functrain.errors import RandomnessError


def require_same_seed(last: int) -> None:
    """Refuse code that was called twice in one stream, and left another seed than the ``last``.

    Torch reports the seed last set, not who set it; but one that another call does not leave again
    was the operating system's.
    """
    if torch.default_generator.initial_seed() != last:
        raise RandomnessError(
            "the loss or the model seeded torch's generator from the operating system "
            "(torch.seed()), so its later random numbers do not follow from the state: the same "
            "step gives another result next time, also when a run is resumed. The generator is "
            "seeded for each step; where a seed is needed, take int(torch.randint(2**31, ())) "
            "instead of torch.seed()."
        )

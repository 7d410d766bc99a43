"""The building blocks of drawn models; each preserves the shape of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH = 8


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.down.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        """Through the weight twice."""
        return cast(Tensor, self.down(self.up(x).tanh()))


class Checkpointed(nn.Module):
    """Computed again in the backward pass, dropout included."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Run the body without storing its activations."""
        return cast(Tensor, checkpoint(self.body, x, use_reentrant=False))


class Recurrent(nn.Module):
    """An LSTM over the sequence; it keeps a list of its weights beside the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output at each position."""
        return cast(Tensor, self.lstm(x)[0])


class Attention(nn.Module):
    """Self-attention beside a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus the attention output."""
        return cast(Tensor, x + self.attention(x, x, x, need_weights=False)[0])


Blocks = dict[str, Callable[[], nn.Module]]

VECTOR: Blocks = {
    "Linear": lambda: nn.Linear(WIDTH, WIDTH),
    "ReLU": nn.ReLU,
    "BatchNorm": lambda: nn.BatchNorm1d(WIDTH),
    "Dropout": lambda: nn.Dropout(0.2),
    "Tied": Tied,
    "Checkpointed": Checkpointed,
}
IMAGE: Blocks = {
    "Conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
    # Two in place, one after the other, autograd refuses; one behind a convolution it does not.
    "Conv in place": lambda: nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(inplace=True)
    ),
    "BatchNorm": lambda: nn.BatchNorm2d(WIDTH),
    "Dropout": lambda: nn.Dropout2d(0.1),
}
SEQUENCE: Blocks = {
    "Linear": lambda: nn.Linear(WIDTH, WIDTH),
    "LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "Attention": Attention,
    "LSTM": Recurrent,
    "Checkpointed": Checkpointed,
}
KINDS: dict[str, tuple[Blocks, tuple[int, ...]]] = {
    "vector": (VECTOR, (WIDTH,)),
    "image": (IMAGE, (WIDTH, 3, 3)),
    "sequence": (SEQUENCE, (4, WIDTH)),
}
"""The blocks of a kind of model, and the shape of a sample."""

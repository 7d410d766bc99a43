"""A character-level GPT on the language reference that Python ships, or on any text file.

The model is that of nanoGPT in the small: pre-norm blocks, learned positions, one weight for the
embedding and the head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain.generation import generate

# The printable characters, so that the vocabulary does not depend on the text.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
_CODES = {character: code for code, character in enumerate(ALPHABET)}


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states, [batch, length, width], to the same."""
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        projected = self.queries_keys_values(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in projected)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.output(mixed.transpose(1, 2).reshape(batch, length, width)))
        hidden: Tensor = x + self.dropout(self.network(self.network_norm(x)))
        return hidden


class GPT(nn.Module):
    """A character language model.

    Args:
        length: characters it sees at once.
        width: size of the hidden states.
        layers: blocks.
        heads: attention heads in each.
        dropout: probability after each part of a block.
    """

    def __init__(
        self,
        length: int = 64,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.length = length
        self.characters = nn.Embedding(len(ALPHABET), width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(ALPHABET), bias=False)
        self.apply(_initialised)
        self.head.weight = self.characters.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, [batch, length, vocabulary], of tokens, [batch, length]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.characters(tokens) + self.positions(places)
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


def _initialised(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)


def loss(model: nn.Module, batch: Tensor) -> ft.Loss:
    """Cross-entropy of the next character in nats, and in bits beside it."""
    logits = model(batch[:, :-1])
    value = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    return ft.Loss(value, metrics={"bits_per_character": value / torch.log(torch.tensor(2.0))})


@attrs.frozen(eq=False, repr=False)
class Windows:
    """Every stretch of ``length`` + 1 characters that begins at a multiple of ``stride``."""

    tokens: Tensor
    length: int
    stride: int

    def __len__(self) -> int:
        return (len(self.tokens) - self.length - 1) // self.stride + 1

    def __getitem__(self, index: int) -> Tensor:
        begin = index * self.stride
        return self.tokens[begin : begin + self.length + 1]


def training_data(
    path: str | None = None,
    length: int = 64,
    batch_size: int = 16,
    seed: int = 0,
    stride: int = 16,
) -> ft.data.Batches:
    """Windows over the first nine tenths of the text."""
    tokens = _tokens(path)
    windows = Windows(tokens[: len(tokens) * 9 // 10], length, stride)
    return ft.data.Batches(windows, batch_size, seed=seed)


def validation_data(
    path: str | None = None, length: int = 64, batch_size: int = 64, windows: int = 512
) -> ft.data.Batches:
    """Windows spread evenly over the last tenth of the text."""
    tokens = _tokens(path)
    rest = tokens[len(tokens) * 9 // 10 :]
    stride = max(1, (len(rest) - length - 1) // windows)
    return ft.data.Batches(Windows(rest, length, stride), batch_size, shuffle=False)


def encoded(text: str) -> Tensor:
    """Codes of the characters of a text; what is not printable becomes a question mark."""
    unknown = _CODES["?"]
    return torch.tensor([_CODES.get(character, unknown) for character in text])


def sample(
    program: ft.Program,
    state: ft.TrainState,
    prompt: str = "The ",
    length: int = 300,
    temperature: float = 0.8,
    top_k: int | None = 20,
    **options: Any,
) -> str:
    """A text that the model goes on with, drawn from the averaged weights where there are any."""
    weights = "params" if state.ema is None else "ema"
    tokens = generate(
        program,
        state,
        encoded(prompt),
        length,
        weights=weights,
        window=state.params["positions.weight"].shape[0],
        temperature=temperature,
        top_k=top_k,
        **options,
    )
    return "".join(ALPHABET[token] for token in tokens.tolist())


def _tokens(path: str | None) -> Tensor:
    if path is not None:
        return encoded(Path(path).read_text(encoding="utf-8"))
    from pydoc_data.topics import topics

    return encoded("\n\n".join(topics[name] for name in sorted(topics)))

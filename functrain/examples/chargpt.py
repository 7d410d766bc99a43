"""A character-level GPT on the language reference that Python ships, or on any text file.

The model is that of nanoGPT in the small: pre-norm blocks, learned positions, one weight for the
embedding and the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ConfigurationError, EmptyDatasetError
from functrain.generation import Sampler, stream

# The printable characters, so that the vocabulary does not depend on the text.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
_CODES = {character: code for code, character in enumerate(ALPHABET)}
# Of one block, each [batch, heads, length, width of a head]; and of all blocks.
KeysValues = tuple[Tensor, Tensor]
Cache = tuple[KeysValues, ...]


class Block(nn.Module):
    """A pre-norm block: causal self-attention and a two-layer network."""

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

    def forward(self, x: Tensor, past: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Return new hidden states, [batch, length, width], and the keys and values behind them."""
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        projected = self.queries_keys_values(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in projected)
        mask = None
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            seen = k.shape[2] - length
            mask = torch.ones(length, k.shape[2], dtype=torch.bool, device=x.device).tril(seen)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=past is None)
        x = x + self.dropout(self.output(mixed.transpose(1, 2).reshape(batch, length, width)))
        return x + self.dropout(self.network(self.network_norm(x))), (k, v)


class GPT(nn.Module):
    """A character language model.

    Args:
        length: how many characters it sees at once.
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
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(ALPHABET), bias=False)
        self.apply(_initialised)
        self.head.weight = self.characters.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, [batch, length, vocabulary], of tokens, [batch, length]."""
        return self.forward_cached(tokens, ())[0]

    def initial_cache(self, batch: int, length: int, device: torch.device) -> Cache:
        """Return the keys and values of an empty text; see :class:`functrain.generation.Cached`."""
        return ()

    def forward_cached(self, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Return the logits of new tokens of a text, and the keys and values of all of it."""
        seen = cache[0][0].shape[2] if cache else 0
        positions = torch.arange(seen, seen + tokens.shape[1], device=tokens.device)
        x = self.characters(tokens) + self.positions(positions)
        kept = []
        for block, past in zip(self.blocks, cache or [None] * len(self.blocks), strict=True):
            x, keys_values = block(x, past)
            kept.append(keys_values)
        return self.head(self.norm(x)), tuple(kept)


def _initialised(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)


def loss(model: nn.Module, batch: Tensor) -> ft.Loss:
    """Return the cross-entropy of the next character in nats, and as a metric in bits."""
    logits = model(batch[:, :-1])
    value = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    return ft.Loss(value, metrics={"bits_per_character": value / torch.log(torch.tensor(2.0))})


def training_data(
    path: str | None = None, length: int = 64, batch_size: int = 16, seed: int = 0, stride: int = 16
) -> ft.data.Batches:
    """Return windows over the first nine tenths of the text.

    Raises:
        EmptyDatasetError: the text is shorter than one window.
    """
    tokens = _tokens(path)
    part = _long_enough(tokens[: len(tokens) * 9 // 10], length, len(tokens))
    return ft.data.Batches(part.unfold(0, length + 1, stride), batch_size, seed=seed)


def validation_data(
    path: str | None = None, length: int = 64, batch_size: int = 64, windows: int = 512
) -> ft.data.Batches:
    """Return windows that are spread evenly over the last tenth of the text.

    Raises:
        EmptyDatasetError: the text is shorter than one window.
    """
    tokens = _tokens(path)
    rest = _long_enough(tokens[len(tokens) * 9 // 10 :], length, len(tokens))
    stride = max(1, (len(rest) - length - 1) // windows)
    return ft.data.Batches(rest.unfold(0, length + 1, stride), batch_size, shuffle=False)


def _long_enough(part: Tensor, length: int, characters: int) -> Tensor:
    """Return a part of a text, if it has at least one window."""
    if len(part) > length:
        return part
    alone = -(-10 * (length + 1) // 9)
    raise EmptyDatasetError(
        f"the text has {characters} characters, and a window takes length + 1 = {length + 1}: the "
        f"text must have {alone} to train on its first nine tenths, and {10 * length + 1} to "
        "evaluate on its last tenth too. Give a longer text or a smaller length="
    )


def encoded(text: str) -> Tensor:
    """Return the codes of the characters of a text; unprintable ones become question marks."""
    return torch.tensor([_CODES.get(character, _CODES["?"]) for character in text])


def codes(prompt: str) -> Tensor:
    """Return the codes of the characters of a prompt, all of which the model must know."""
    for position, character in enumerate(prompt, 1):
        if character not in _CODES:
            raise ConfigurationError(
                f"character {position} of the prompt is {character!r} (U+{ord(character):04X}), "
                "which the model does not know: it knows printable ASCII and the line feed"
            )
    if not prompt:
        raise ConfigurationError("the prompt is empty; give at least one character to go on with")
    return encoded(prompt)


def pieces(
    program: ft.Program,
    state: ft.TrainState,
    prompt: str = "The ",
    length: int = 300,
    *,
    weights: Literal["params", "ema"] | None = None,
    seed: int = 0,
    temperature: float = 0.8,
    top_k: int | None = 20,
    **rules: Any,
) -> Iterator[str]:
    """Yield the characters of a continuation one by one; see :func:`sample`."""
    drawn = stream(
        program,
        state,
        codes(prompt),
        length,
        sampler=Sampler(temperature=temperature, top_k=top_k, **rules),
        weights=weights or ("params" if state.ema is None else "ema"),
        window=state.params["positions.weight"].shape[0],
        seed=seed,
    )
    return (ALPHABET[token] for _, token in drawn)


def sample(
    program: ft.Program,
    state: ft.TrainState,
    prompt: str = "The ",
    length: int = 300,
    *,
    stream: bool = False,
    **options: Any,
) -> str | Iterator[str]:
    """Return a continuation of a text by the model.

    Args:
        program: of the model.
        state: holds the weights.
        prompt: how the text begins.
        length: characters to add.
        stream: return an iterator of what is added instead.
        **options: ``weights`` (by default the averaged ones where there are any), ``seed``, and
            those of :class:`functrain.generation.Sampler`.
    """
    added = pieces(program, state, prompt, length, **options)
    return added if stream else prompt + "".join(added)


def _tokens(path: str | None) -> Tensor:
    if path is not None:
        return encoded(Path(path).read_text(encoding="utf-8"))
    from pydoc_data.topics import topics

    return encoded("\n\n".join(topics[name] for name in sorted(topics)))

"""The same models in plain jax.numpy, trained with optax under ``jit`` and donation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from torch import nn

from benchmarks.steps.feed import Feed
from benchmarks.steps.models import GPT
from benchmarks.steps.work import LEARNING_RATE, Work

Array = jax.Array
Params = dict[str, Array]
Apply = Callable[[Params, Array], Array]


def train(work: Work, feed: Feed) -> None:
    """Jit one step, which sums the gradients of micro-batches in a scan."""
    model = work.model()
    params = {name: jnp.array(param.detach().numpy()) for name, param in model.named_parameters()}
    parts = [(jnp.array(x.numpy()), jnp.array(y.numpy())) for x, y in work.parts()]
    inputs, targets = (jnp.stack(column) for column in zip(*parts, strict=True))
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=1e-2)
    step = _step(_apply(model), optimizer)
    moments = optimizer.init(params)
    del model
    for _ in feed:
        params, moments, loss = step(params, moments, inputs, targets)
        feed.losses.append(loss)
        feed.settle = partial(jax.block_until_ready, (params, moments, loss))


def _step(apply: Apply, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    def loss_of(params: Params, inputs: Array, targets: Array) -> Array:
        logits = apply(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, moments: Any, inputs: Array, targets: Array) -> Any:
        gradients = jax.value_and_grad(loss_of)
        if len(inputs) == 1:
            loss, grads = gradients(params, inputs[0], targets[0])
        else:
            loss, grads = _accumulated(partial(gradients, params), inputs, targets)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    return step


def _accumulated(gradients: Callable[..., Any], inputs: Array, targets: Array) -> Any:
    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients(*part)), None

    first = gradients(inputs[0], targets[0])
    total, _ = jax.lax.scan(add, first, (inputs[1:], targets[1:]))
    return jax.tree.map(lambda value: value / len(inputs), total)


def _apply(model: nn.Module) -> Apply:
    if isinstance(model, GPT):
        return partial(_gpt, len(model.blocks), model.blocks[0].heads)
    assert isinstance(model, nn.Sequential)
    return partial(_sequential, [isinstance(layer, nn.ReLU) for layer in model])


def _linear(params: Params, name: str, x: Array) -> Array:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _norm(params: Params, name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
    return scaled * params[f"{name}.weight"] + params[f"{name}.bias"]


def _sequential(rectified: list[bool], params: Params, x: Array) -> Array:
    for index, rectifies in enumerate(rectified):
        x = jax.nn.relu(x) if rectifies else _linear(params, str(index), x)
    return x


def _gpt(layers: int, heads: int, params: Params, tokens: Array) -> Array:
    x = params["tokens.weight"][tokens] + params["positions"][: tokens.shape[1]]
    for index in range(layers):
        name = f"blocks.{index}"
        x = x + _attention(heads, params, name, _norm(params, f"{name}.norm1", x))
        hidden = _linear(params, f"{name}.up", _norm(params, f"{name}.norm2", x))
        x = x + _linear(params, f"{name}.down", jax.nn.gelu(hidden, approximate=False))
    return _norm(params, "norm", x) @ params["tokens.weight"].T


def _attention(heads: int, params: Params, name: str, x: Array) -> Array:
    batch, length, width = x.shape
    q, k, v = (
        part.reshape(batch, length, heads, width // heads)
        for part in jnp.split(_linear(params, f"{name}.qkv", x), 3, axis=-1)
    )
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return _linear(params, f"{name}.out", mixed.reshape(batch, length, width))

"""The same network in JAX: a population by ``vmap``, several steps by ``lax.scan``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
Params = list[tuple[jax.Array, jax.Array]]


def population(net: nn.Sequential, batch: Batch, members: int) -> Callable[[], None]:
    """Return a step of members that differ in their learning rate."""
    inputs, targets = (jnp.array(one.numpy()) for one in batch)
    rates = jnp.array([1e-3 * (1 + n / members) for n in range(members)])
    params = jax.tree.map(lambda one: jnp.stack([one] * members), _params(net))
    made = jax.vmap(lambda lr, own: _optimizer(lr).init(own))(rates, params)
    step = jax.jit(
        jax.vmap(_step, in_axes=(0, 0, 0, None, None)),
        donate_argnums=(1, 2),
    )
    held: list[Any] = [(params, made)]

    def call() -> None:
        held[0] = jax.block_until_ready(step(rates, *held[0], inputs, targets)[:2])

    return call


def scanned(net: nn.Sequential, batch: Batch, steps: int) -> Callable[[], None]:
    """Return a call that makes several steps."""
    inputs, targets = (jnp.stack([jnp.array(one.numpy())] * steps) for one in batch)
    params = _params(net)

    def one(carry: Any, given: Any) -> Any:
        *after, loss = _step(1e-3, *carry, *given)
        return tuple(after), loss

    call = jax.jit(lambda state, *given: jax.lax.scan(one, state, given), donate_argnums=0)
    held: list[Any] = [(params, _optimizer(1e-3).init(params))]

    def run() -> None:
        held[0] = jax.block_until_ready(call(held[0], inputs, targets))[0]

    return run


def _params(net: nn.Sequential) -> Params:
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    return [
        (jnp.array(one.weight.detach().numpy()), jnp.array(one.bias.detach().numpy()))
        for one in layers
    ]


def _optimizer(lr: Any) -> optax.GradientTransformation:
    return optax.adamw(lr, weight_decay=1e-2)


def _step(lr: Any, params: Params, moments: Any, inputs: jax.Array, targets: jax.Array) -> Any:
    def loss_of(params: Params) -> jax.Array:
        x = inputs
        for number, (weight, bias) in enumerate(params):
            x = (jax.nn.relu(x) if number else x) @ weight.T + bias
        return optax.softmax_cross_entropy_with_integer_labels(x, targets).mean()

    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, moments = _optimizer(lr).update(grads, moments, params)
    return optax.apply_updates(params, updates), moments, loss

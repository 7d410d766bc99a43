"""Programs with steps of their own, each with the same loop in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import functrain as ft
from functrain.core.rng import Rng

X = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
SIZE = 8
QUEUE = 24


def data() -> Any:
    return ft.data.Batches(X, batch_size=SIZE, shuffle=False)


def net(inputs: int, outputs: int, seed: int, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = [nn.BatchNorm1d(16)] if norm else []
        return nn.Sequential(nn.Linear(inputs, 16), *hidden, nn.Tanh(), nn.Linear(16, outputs))


def noise(number: int, *shape: int) -> Tensor:
    """Draw what ``rng`` draws first in a step of a run with seed 0."""
    seed = Rng(0).stream("rng", "step", number)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches(steps: int) -> Iterator[tuple[int, Tensor]]:
    each = X.split(SIZE)
    yield from ((number, each[number % len(each)]) for number in range(steps))


# -- a generator and a discriminator -----------------------------------------------------------


def judged(model: nn.Module, batch: Any) -> Tensor:
    real, fake = batch
    return F.softplus(-model(real)).mean() + F.softplus(model(fake)).mean()


def fooled(model: nn.Module, batch: Any) -> Tensor:
    z, judge = batch
    return F.softplus(-judge(model(z))).mean()


def alternate(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
    g, d = programs["generator"], programs["discriminator"]
    z = torch.randn(len(batch), 4, generator=rng)
    with g.module(states["generator"], training=True) as generate, torch.no_grad():
        fake = generate(z)
    judge_state, found = d.train_step(states["discriminator"], (batch, fake))
    with d.module(judge_state, training=True) as judge:
        state, own = g.train_step(states["generator"], (z, judge))
    metrics = {"loss": own["loss"], "discriminator/loss": found["loss"]}
    return {"generator": state, "discriminator": judge_state}, metrics


def distance(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
    z = torch.randn(len(batch), 4, generator=rng)
    with programs["generator"].module(states["generator"]) as generate, torch.no_grad():
        return {"distance": (generate(z).mean(0) - batch.mean(0)).norm()}


def gan() -> Any:
    programs = {
        "generator": ft.program(net(4, 2, 1, norm=True), fooled, ft.optim.Adam(lr=1e-2)),
        "discriminator": ft.program(net(2, 1, 2), judged, ft.optim.Adam(lr=1e-2)),
    }
    return ft.joint(programs, step=alternate, evaluate=distance)


def gan_by_hand(steps: int) -> dict[str, dict[str, Tensor]]:
    g, d = net(4, 2, 1, norm=True), net(2, 1, 2)
    by_g, by_d = (torch.optim.Adam(each.parameters(), lr=1e-2, fused=True) for each in (g, d))
    for number, batch in batches(steps):
        z = noise(number, len(batch), 4)
        statistics = {name: one.clone() for name, one in g.named_buffers()}
        with torch.no_grad():
            fake = g(z)
        for name, one in g.named_buffers():  # the fakes do not move the generator's statistics
            one.copy_(statistics[name])
        by_d.zero_grad()
        judged(d, (batch, fake)).backward()
        by_d.step()
        by_g.zero_grad()
        fooled(g, (z, d)).backward()
        by_g.step()
    return {"generator": g.state_dict(), "discriminator": d.state_dict()}


# -- Q-learning with a target network ----------------------------------------------------------


def bellman(model: nn.Module, batch: Any) -> Tensor:
    state, action, reward, after, target = batch
    with torch.no_grad():
        wanted = reward + 0.9 * target(after).amax(1)
    return F.smooth_l1_loss(model(state).gather(1, action[:, None])[:, 0], wanted)


def transitions(batch: Tensor, drawn: Tensor) -> tuple[Tensor, ...]:
    """Return moves on a plane: actions push a point, and the reward is to be near the middle."""
    action = (drawn[:, 0] > 0).long() + 2 * (drawn[:, 1] > 0).long()
    push = torch.tensor([[0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]])
    after = batch + push[action]
    return batch, action, -after.norm(dim=1), after


def q_step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
    moves = transitions(batch, torch.randn(len(batch), 2, generator=rng))
    online, target = states["online"], states["target"]
    with programs["target"].module(target) as network:
        online, metrics = programs["online"].train_step(online, (*moves, network))
    if online.counters.step % 10 == 0:
        target = attrs.evolve(target, params=online.params)
    return {"online": online, "target": target}, metrics


def dqn() -> Any:
    made = ft.program(net(2, 4, 3), bellman, ft.optim.AdamW(lr=1e-2))
    return ft.joint({"online": made, "target": made}, step=q_step)


def dqn_by_hand(steps: int) -> dict[str, dict[str, Tensor]]:
    online, target = net(2, 4, 3), net(2, 4, 3)
    optimizer = torch.optim.AdamW(online.parameters(), lr=1e-2, fused=True)
    for number, batch in batches(steps):
        moves = transitions(batch, noise(number, len(batch), 2))
        optimizer.zero_grad()
        bellman(online, (*moves, target)).backward()
        optimizer.step()
        if (number + 1) % 10 == 0:
            target.load_state_dict(online.state_dict())
    return {"online": online.state_dict(), "target": target.state_dict()}


# -- contrast with a momentum encoder and a queue ----------------------------------------------


def contrast(model: nn.Module, batch: Any) -> Tensor:
    view, keys, queue = batch
    queries = F.normalize(model(view), dim=1)
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ queue.T], 1) / 0.2
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def no_keys(seed: int) -> Tensor:
    return F.normalize(torch.ones(QUEUE, 4), dim=1)


def enqueue(queue: Tensor, keys: Tensor, rng: torch.Generator) -> Any:
    return torch.cat([queue, keys])[-QUEUE:], {}


def moco_step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
    one, other = batch + 0.1 * torch.randn(2, len(batch), 2, generator=rng)
    encoder, queue = programs["encoder"], states["queue"]
    with encoder.module(states["encoder"], weights="ema") as momentum, torch.no_grad():
        keys = F.normalize(momentum(other), dim=1)
    state, metrics = encoder.train_step(states["encoder"], (one, keys, queue.tree))
    queue, _ = programs["queue"].train_step(queue, keys)
    return {"encoder": state, "queue": queue}, metrics


def moco() -> Any:
    encoder = ft.program(
        net(2, 4, 4), contrast, ft.optim.SGD(lr=0.1, momentum=0.9), ema=0.99, clip_norm=1.0
    )
    queue = ft.custom(no_keys, enqueue)
    return ft.joint({"encoder": encoder, "queue": queue}, step=moco_step)


def moco_by_hand(steps: int) -> dict[str, dict[str, Tensor]]:
    encoder, queue = net(2, 4, 4), no_keys(0)
    momentum = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9, fused=True)
    for number, batch in batches(steps):
        one, other = batch + 0.1 * noise(number, 2, len(batch), 2)
        with torch.no_grad():
            keys = F.normalize(momentum(other), dim=1)
        optimizer.zero_grad()
        contrast(encoder, (one, keys, queue)).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        momentum.update_parameters(encoder)
        queue = torch.cat([queue, keys])[-QUEUE:]
    found = {"encoder": encoder.state_dict(), "momentum": momentum.module.state_dict()}
    return {**found, "queue": {"tree": queue}}


# -- a teacher that is the average of its student ----------------------------------------------


def consistency(model: nn.Module, batch: Any) -> Tensor:
    x, wanted = batch
    return F.mse_loss(model(x), wanted)


def teach(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
    student = programs["student"]
    with student.module(states["student"], weights="ema") as teacher, torch.no_grad():
        wanted = teacher(batch) + batch.sum(1, keepdim=True)
    x = batch + 0.1 * torch.randn(batch.shape, generator=rng)
    state, metrics = student.train_step(states["student"], (x, wanted))
    return {"student": state}, metrics


def mean_teacher() -> Any:
    student = ft.program(net(2, 1, 5), consistency, ft.optim.SGD(lr=0.05), ema=0.9)
    return ft.joint({"student": student}, step=teach)


def mean_teacher_by_hand(steps: int) -> dict[str, dict[str, Tensor]]:
    student = net(2, 1, 5)
    teacher = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    for number, batch in batches(steps):
        with torch.no_grad():
            wanted = teacher(batch) + batch.sum(1, keepdim=True)
        x = batch + 0.1 * noise(number, *batch.shape)
        optimizer.zero_grad()
        consistency(student, (x, wanted)).backward()
        optimizer.step()
        teacher.update_parameters(student)
    return {"student": student.state_dict(), "teacher": teacher.module.state_dict()}


def shifted(queue: Tensor, batch: Tensor, rng: torch.Generator) -> Any:
    return queue + torch.randn(queue.shape, generator=rng), {"norm": queue.norm()}

"""Models of packages other than transformers; none of them needs torchvision."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import torch_geometric.nn as graphs
import x_transformers
import zuko
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool

import functrain as ft
from zoo.entry import Entry, seeded

SMALL = {"in_channels": 3, "out_channels": 3, "norm_num_groups": 4}


def noised(seed: int) -> dict[str, Tensor]:
    """Noisy pictures, with the time step that a denoiser receives."""
    source = seeded(seed)
    noise, pixels = torch.randn(2, 2, 3, 8, 8, generator=source)
    times = torch.randint(0, 100, (2,), generator=source)
    return {"x": pixels + noise, "times": times, "noise": noise}


def denoising(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["x"], batch["times"]).sample - batch["noise"]).square().mean()


def denoising_by_class(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    classes = batch["times"] % 3
    found = model(batch["x"], timestep=batch["times"], class_labels=classes).sample
    return (found - batch["noise"]).square().mean()


def coding(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A variational autoencoder, which samples its code."""
    posterior = model.encode(batch["x"]).latent_dist
    found = model.decode(posterior.sample()).sample
    return (found - batch["x"]).square().mean() + 1e-3 * posterior.kl().mean()


def quantised(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    found = model(batch["x"])
    return (found.sample - batch["x"]).square().mean() + found.commit_loss.mean()


def _unet() -> nn.Module:
    return diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        **SMALL,
    )


def _transformer() -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=4,
        **SMALL,
    )


def _autoencoder() -> nn.Module:
    return diffusers.AutoencoderKL(block_out_channels=(8,), latent_channels=2, **SMALL)


def _vector_quantiser() -> nn.Module:
    return diffusers.VQModel(
        block_out_channels=(8,), latent_channels=2, num_vq_embeddings=8, **SMALL
    )


def tokens(seed: int) -> Tensor:
    return torch.randint(0, 31, (2, 9), generator=seeded(seed))


def next_token(model: nn.Module, batch: Tensor) -> Tensor:
    logits = model(batch[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def _decoder(**options: Any) -> nn.Module:
    layers = x_transformers.Decoder(dim=16, depth=2, heads=2, attn_dim_head=8, **options)
    return x_transformers.TransformerWrapper(num_tokens=31, max_seq_len=16, attn_layers=layers)


def points(seed: int) -> Tensor:
    return torch.randn(8, 2, generator=seeded(seed))


def likelihood(model: nn.Module, batch: Tensor) -> Tensor:
    return -model().log_prob(batch).mean()


def molecules(seed: int) -> Data:
    """Three graphs of 4 to 6 nodes as one batch."""
    source, made = seeded(seed), []
    for nodes in (4, 6, 5):
        x = torch.randn(nodes, 5, generator=source)
        edges = torch.randint(0, nodes, (2, 2 * nodes), generator=source)
        made.append(Data(x=x, edge_index=edges, y=x.sum().reshape(1)))
    return Batch.from_data_list(made)


class Pooled(nn.Module):
    """A graph network with one output per graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(8, 1)

    def forward(self, batch: Any) -> Tensor:
        nodes = self.network(batch.x, batch.edge_index)
        return self.head(global_mean_pool(nodes, batch.batch)).squeeze(-1)


def of_graphs(model: nn.Module, batch: Any) -> ft.Loss:
    return ft.Loss((model(batch) - batch.y).square().mean(), weight=batch.num_graphs)


ENTRIES = [
    Entry("UNet2D", _unet, noised, denoising),
    Entry("DiT", _transformer, noised, denoising_by_class),
    Entry("AutoencoderKL", _autoencoder, noised, coding),
    Entry("VQModel", _vector_quantiser, noised, quantised),
    Entry("x-transformers", lambda: _decoder(rotary_pos_emb=True), tokens, next_token),
    Entry("layer dropout", lambda: _decoder(layer_dropout=0.4), tokens, next_token),
    Entry("neural spline flow", lambda: zuko.flows.NSF(2, transforms=2), points, likelihood),
    Entry("masked flow", lambda: zuko.flows.MAF(2, transforms=2), points, likelihood),
    Entry("GIN", lambda: Pooled(graphs.GIN(5, 8, 2, dropout=0.2)), molecules, of_graphs),
    Entry("GAT", lambda: Pooled(graphs.GAT(5, 8, 2, heads=2)), molecules, of_graphs),
]

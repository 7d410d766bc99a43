"""Tensors go where they are wanted; on the CPU alone, and with an accelerator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from manifests import reseal

from functrain import tree
from functrain.checkpoint import Anything, load, save

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_missing_device_becomes_the_cpu(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"w": torch.ones(2)})
    reseal(path, lambda fields: fields["leaves"][0].update(device="cuda:63"))
    assert load(path)["w"].device == torch.device("cpu")
    assert load(path, device="meta")["w"].is_meta


@gpu
@pytest.mark.gpu
def test_accelerator(tmp_path: Path) -> None:
    weight = torch.randn(8, 4, 3, 3, device="cuda").to(memory_format=torch.channels_last)
    saved = {"w": weight, "tied": weight, "h": weight[:, 1].half(), "step": torch.tensor(3.0)}
    path = save(tmp_path / "c", saved)
    loaded = load(path)
    assert tree.equal(loaded, saved)
    assert loaded["w"].is_cuda
    assert loaded["w"] is loaded["tied"]
    assert loaded["w"].stride() == weight.stride()
    assert loaded["step"].device.type == "cpu"
    assert all(not leaf.is_cuda for _, leaf in tree.items(load(path, device="cpu")))
    like = tree.map(lambda leaf: leaf.cpu(), saved) | {"h": Anything}
    mixed = load(path, like)
    assert (mixed["w"].device.type, mixed["h"].device.type) == ("cpu", "cuda")
    assert tree.equal(tree.map(lambda leaf: leaf.cpu(), mixed), tree.map(torch.Tensor.cpu, saved))

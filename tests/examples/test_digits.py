"""The data of the digits example."""

from __future__ import annotations

import sys

import processes
import pytest
import torch

from functrain.errors import MissingExtraError
from functrain.examples import digits


def test_the_images_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    expected = datasets.load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))[digits.TRAINING :]
    (images, labels), *rest = digits.validation_data(batch_size=360)
    assert rest == []
    assert torch.equal(images.squeeze(1) * 16, torch.tensor(expected.images[order]).float())
    assert torch.equal(labels, torch.tensor(expected.target[order]))


def test_scikit_learn_is_not_imported() -> None:
    pytest.importorskip("sklearn")
    code = (
        "import sys; from functrain.examples import digits\n"
        "digits.training_data(), digits.validation_data()\n"
        "print([name for name in sys.modules if name.startswith('sklearn')])"
    )
    assert processes.run("-c", code).stdout == "[]\n"


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"functrain\[examples\]"):
        digits.validation_data()

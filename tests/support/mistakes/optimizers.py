"""Mistakes with optimizers."""

from __future__ import annotations

import torch

import functrain as ft
from functrain import errors
from functrain.optim import SGD, AdamW, Muon, groups
from mistakes.mistake import program

MISTAKES = {
    errors.ConfigurationError: [
        (
            lambda: AdamW(torch.nn.Linear(2, 1).parameters()),
            "AdamW: lr … parameters are in the state … got <generator",
        ),
        (lambda: AdamW(betas=(0.9, 1.0)), "AdamW: betas … expected a number in [0, 1) … 1.0"),
        (lambda: SGD(lr=0.1, nesterov=True), "needs momentum > 0 … momentum=0.0"),
        (
            lambda: groups({"*": SGD(lr=0.1)}),
            "expected a list of (pattern, optimizer) … got a dict",
        ),
        (
            lambda: program(optimizer=Muon(lr=0.1)).init(),
            "'bias' has shape (1,) … "
            "functrain.optim.groups([(functrain.optim.is_matrix, Muon(...)), ('*', AdamW(...))])",
        ),
        (
            lambda: program(optimizer=groups([("*weight", SGD(lr=0.1))])),
            "parameter 'bias' of shape (1,) … end with ('*', optimizer)",
        ),
        (
            lambda: program(optimizer=groups([("haed*", SGD(lr=0.1)), ("*", SGD(lr=0.1))])),
            "pattern 'haed*' … matches none of the 2 parameters",
        ),
    ],
    errors.UnsupportedError: [
        (
            lambda: ft.optim.from_torch(torch.optim.LBFGS, lr=0.1),
            "LBFGS.step needs a closure … choose another optimizer",
        ),
        (
            lambda: ft.optim.from_torch(torch.optim.SGD, lr=0.1, momentun=0.9),
            "momentun … it is SGD(",
        ),
    ],
}

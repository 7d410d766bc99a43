"""Mistakes with optimizers."""

from __future__ import annotations

import torch

import functrain as ft
from functrain import errors
from functrain.optim import SGD, AdamW, Muon, groups
from mistakes.mistake import Mistake, program

MISTAKES = [
    Mistake(
        errors.ConfigurationError,
        lambda *_: AdamW(torch.nn.Linear(2, 1).parameters()),  # type: ignore[arg-type]
        ("AdamW: lr", "got <generator"),
        ("parameters are in the state",),
    ),
    Mistake(errors.ConfigurationError, lambda *_: AdamW(lr=-1.0), ("AdamW: lr", "-1.0"), (">= 0",)),
    Mistake(
        errors.ConfigurationError,
        lambda *_: AdamW(betas=(0.9, 1.0)),
        ("AdamW: betas", "1.0"),
        ("expected a number in [0, 1)",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: SGD(lr=0.1, nesterov=True),
        ("momentum=0.0",),
        ("needs momentum > 0",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: groups({"*": SGD(lr=0.1)}),
        ("got a dict",),
        ("expected a list of (pattern, optimizer)",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: program(optimizer=Muon(lr=0.1)).init(),
        ("'bias' has shape (1,)",),
        ("functrain.optim.groups([(functrain.optim.is_matrix, Muon(...)), ('*', AdamW(...))])",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: program(optimizer=groups([("*weight", SGD(lr=0.1))])),
        ("parameter 'bias' of shape (1,)",),
        ("end with ('*', optimizer)",),
    ),
    Mistake(
        errors.ConfigurationError,
        lambda *_: program(optimizer=groups([("haed*", SGD(lr=0.1)), ("*", SGD(lr=0.1))])),
        ("pattern 'haed*'",),
        ("matches none of the 2 parameters",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda *_: ft.optim.from_torch(torch.optim.LBFGS, lr=0.1),
        ("LBFGS.step needs a closure",),
        ("choose another optimizer",),
    ),
    Mistake(
        errors.UnsupportedError,
        lambda *_: ft.optim.from_torch(torch.optim.SGD, lr=0.1, momentun=0.9),
        ("momentun",),
        ("it is SGD(",),
    ),
]

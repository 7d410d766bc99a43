"""Colours that remain distinct for colour-blind readers.

The hues of Okabe and Ito, "Color Universal Design" (2008), darkened for a light background and
lightened for a dark one until each has a contrast of 3:1 or more, as WCAG 2.1 asks of graphics.
"""

from __future__ import annotations

LIGHT = ("#0072b2", "#d55e00", "#00875f", "#b8578f", "#a86f00", "#2b8cc4", "#555555")
DARK = ("#5ab4f0", "#ff8c42", "#2fcf9f", "#e59ac4", "#f0b429", "#9ad5f5", "#bbbbbb")
# Dashes as SVG and matplotlib write them: training, evaluation, further evaluation sets.
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2.5), (1.5, 2), (7, 2, 1.5, 2))

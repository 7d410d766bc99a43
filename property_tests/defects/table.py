"""All planted defects."""

from __future__ import annotations

from .defect import Defect
from .resumption import RESUMPTION
from .running import DATA, DECISIONS
from .training import PURITY, STEP

DEFECTS: tuple[Defect, ...] = (*RESUMPTION, *PURITY, *STEP, *DECISIONS, *DATA)

"""The values that the options of sampling accept, for the rules and for the sampler."""

from __future__ import annotations

from functrain.errors.validators import integer, number

TEMPERATURE = number(minimum=0, finite=False)
TOP_K = integer(minimum=0)
TOP_P = MIN_P = number(minimum=0, maximum=1)
REPETITION_PENALTY = number(above=0, finite=False)
NO_REPEAT_NGRAM_SIZE = integer(minimum=0)

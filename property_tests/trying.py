"""The number of examples of a law by FUNCTRAIN_EXAMPLES: few (short), full or many (long)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

ASKED = os.environ.get("FUNCTRAIN_EXAMPLES", "short")
LONG = ASKED == "long"
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
_FINDING = (Phase.explicit, Phase.generate)


def load_profile() -> None:
    """Load the profile for every law without its own settings."""
    common = {"deadline": None, "suppress_health_check": _QUIET}
    settings.register_profile("short", max_examples=15, derandomize=True, **common)
    settings.register_profile("long", max_examples=400, print_blob=True, **common)
    # No shrinking: only whether a law fails matters, not by how little.
    found = settings.get_profile("short")
    settings.register_profile("full", found, max_examples=100)
    settings.register_profile("broken", found, phases=_FINDING, report_multiple_bugs=False)
    settings.load_profile(ASKED)


def tried(count: int) -> settings:
    """Return the number of examples: as given in ``make test-long`` and where defects are planted,
    ten times as many at length, and a tenth in ``make test``."""
    most = {"short": max(min(count, 4), count // 10), "long": 10 * count}.get(ASKED, count)
    return settings(settings.get_profile(ASKED), max_examples=most)

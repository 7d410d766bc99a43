"""The number of examples per law: few, or many with FUNCTRAIN_EXAMPLES=long."""

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
    settings.register_profile("short", max_examples=25, derandomize=True, **common)
    settings.register_profile("long", max_examples=400, print_blob=True, **common)
    # No shrinking: only whether a law fails matters, not by how little.
    found = settings.get_profile("short")
    settings.register_profile("broken", found, phases=_FINDING, report_multiple_bugs=False)
    settings.load_profile(ASKED)


def tried(short: int) -> settings:
    """Return the number of examples: as given, or ten times as many at length."""
    return settings(settings.get_profile(ASKED), max_examples=10 * short if LONG else short)

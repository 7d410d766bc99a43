"""python -m torture [--minutes 10] [--seed N] [--case digits]: see ``make torture``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from torture.driver import Torture, report, run
from torture.runs import CASES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", choices=list(CASES), action="append", default=[])
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="functrain-torture-"))
    print(f"seed {arguments.seed}, in {place}", flush=True)
    torture = Torture(place, arguments.seed)
    run(torture, arguments.minutes, cases=tuple(arguments.case))
    print(report(torture))
    return 1 if torture.problems else 0


if __name__ == "__main__":
    sys.exit(main())

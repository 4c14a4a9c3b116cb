"""``python -m stepcost.measuring.fresh REQUEST``: one configuration in a fresh interpreter."""

from __future__ import annotations

import json
import sys
import time

from stepcost.measuring.child import STARTED


def main() -> None:
    """Build the configuration of the request (JSON, the one argument) and take its first step."""
    STARTED.update(requested_at=time.perf_counter(), forked_at=time.perf_counter())
    from stepcost.measuring.configuration import Configuration  # noqa: PLC0415 (its import is what is timed)
    from stepcost.request import Request  # noqa: PLC0415

    Configuration(Request(**json.loads(sys.argv[1]))).first_step()


if __name__ == "__main__":
    main()

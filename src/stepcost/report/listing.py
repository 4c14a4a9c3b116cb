"""The arguments of ``list``: none."""

from __future__ import annotations

import sys

from stepcost.report.command import list_runs


def main(arguments: list[str]) -> int:
    """Print the table of saved runs. Returns 0, or 2 for arguments that it does not take."""
    if arguments:
        print("list takes no arguments", file=sys.stderr)
        return 2
    return list_runs()

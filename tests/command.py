"""The command as a shell runs it, in this process."""

from collections.abc import Sequence

from stepcost.cli import main


def stepcost(arguments: Sequence[str]) -> int:
    """Run ``stepcost`` with these arguments; return its exit code, that of a wrong request included."""
    try:
        return main(list(arguments))
    except SystemExit as stopped:
        return int(stopped.code or 0)


def predict(arguments: Sequence[str]) -> int:
    """Run ``stepcost predict`` with these arguments; return its exit code."""
    return stepcost(["predict", *arguments])

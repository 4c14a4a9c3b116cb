"""``python -m reports``: one subcommand per module; without one, the report of the runs named."""

from __future__ import annotations

import sys

USAGE = """\
python -m reports list                            the saved runs
python -m reports RUN [RUN ...] [--out DIR]       a report of them: report.html, report.md and plots
python -m reports compare BASE NEW                what got worse; exit code 1 if anything did
python -m reports compare 'torch*'                several runs side by side, in tables and plots

A RUN is a name (run1), a number (0001) or a path; compare takes patterns too."""


def main(arguments: list[str]) -> int:
    """Run one subcommand. Returns its exit code: 0 done, 2 could not."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    # Each subcommand is imported only when it is asked for: `list` starts without jinja2 and matplotlib.
    if arguments[0] == "list":
        from stepcost.report import listing  # noqa: PLC0415

        return listing.main(arguments[1:])
    if arguments[0] == "compare":
        from stepcost.report.compare import command as compare  # noqa: PLC0415

        return compare.main(arguments[1:])
    from stepcost.report import command as report  # noqa: PLC0415

    return report.main(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        sys.exit(0)

"""How numbers are written: one unit per kind of quantity, the same on every table, plot and line."""

from __future__ import annotations

from collections.abc import Sequence

MB = 10**6
GB = 10**9
BYTES_NOTE = "MB (10**6 bytes)"
"""Said on every table that shows memory."""


def mb(size_bytes: float, digits: int = 1) -> str:
    """Write bytes as ``232.7 MB`` (MB = 10**6 bytes)."""
    return f"{size_bytes / MB:,.{digits}f} MB"


def mb_number(size_bytes: float) -> str:
    """Write bytes as ``232.7`` under a heading that says MB (10**6 bytes)."""
    return f"{size_bytes / MB:,.1f}"


def range_mb(low_bytes: float, high_bytes: float) -> str:
    """Write a range of bytes as ``543 to 799 MB`` (MB = 10**6 bytes)."""
    return f"{low_bytes / MB:,.0f} to {mb(high_bytes, 0)}"


def gb(size_bytes: float, digits: int) -> str:
    """Write bytes as ``85.0 GB`` (GB = 10**9 bytes)."""
    return f"{size_bytes / GB:,.{digits}f} GB"


def places(numbers: Sequence[int]) -> str:
    """Say ``0 to 2, 5`` of whole numbers in order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        count(run[0]) if len(run) == 1 else f"{count(run[0])} to {count(run[-1])}" for run in runs
    )


def significant(value: float, digits: int = 3) -> str:
    """Write at least ``digits`` significant digits, no exponent: ``0.0123``, ``62.7``, ``12,500``."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.996 is 10.0
    if exponent >= 0:
        return f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return f"{value:#.{digits}g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def ms(seconds: float) -> str:
    """Write seconds as ``62.7 ms``."""
    return f"{significant(seconds * 1000)} ms"


def seconds(value_s: float) -> str:
    """Write seconds as ``118 s``."""
    return f"{significant(value_s)} s"


def duration(value_s: float) -> str:
    """Write milliseconds below one second, else seconds."""
    return ms(value_s) if value_s < 1 else seconds(value_s)


def joules(value_j: float) -> str:
    """Write energy as ``36.1 mJ`` below one joule, else as ``7.50 J``."""
    return f"{significant(1000 * value_j)} mJ" if value_j < 1 else f"{significant(value_j)} J"


def percent(fraction: float) -> str:
    """Write a fraction between 0 and 1 as ``91.2 %``."""
    return f"{100 * fraction:.1f} %"


def points(fraction: float) -> str:
    """Write a difference between two fractions as ``2.6 points`` (percentage points)."""
    return f"{100 * fraction:.1f} points"


def count(number: float) -> str:
    """Write a count as ``58,164,298``."""
    return f"{number:,.0f}"


def counted(number: int, thing: str) -> str:
    """Write a number of things as ``1 epoch`` or ``10 epochs``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def an(noun: str) -> str:
    """Put the article before a noun: ``an image``, ``a sequence``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(parts: list[str]) -> str:
    """Join parts as ``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""

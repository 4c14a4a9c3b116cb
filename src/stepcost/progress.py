"""Progress of long work on standard error: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

EVERY_S = 5.0
"""Where there is no terminal a line follows the one before after so many seconds: quick work says nothing."""


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Show while the block runs how far it is; call what it yields with the name of each part that begins.

    There are ``total`` parts, or nobody knows how many.
    """
    if sys.stderr.isatty():
        with tqdm(desc=title, total=total, leave=False) as bar:

            def show(part: str) -> None:
                bar.set_postfix_str(part, refresh=False)
                bar.update()

            yield show
        return
    begun, said = 0, time.monotonic()

    def say(part: str) -> None:
        nonlocal begun, said
        begun += 1
        if time.monotonic() - said >= EVERY_S:
            said = time.monotonic()
            place = f"{begun}" if total is None else f"{begun} of {total}"
            print(f"{title}: {place}, {part}", file=sys.stderr, flush=True)

    yield say

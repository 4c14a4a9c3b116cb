"""``python -m stepcost.report.scrub SAVED REFERENCE``: a saved run without what names its machine's owner."""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePath
from typing import Any

MACHINE_KEPT_OUT = ("node", "release")
"""Of pytest-benchmark's machine_info: the host's name, and its kernel's build."""
STORAGE_FLAG = "--benchmark-storage"


def scrubbed(run: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a saved run without host name, repository or paths; every reading stays as it is."""
    machine = {name: value for name, value in run["machine_info"].items() if name not in MACHINE_KEPT_OUT}
    session = dict(run["stepcost"])
    command = [part for part in session["command"] if not part.startswith(STORAGE_FLAG)]
    session["command"] = [_without_folder(part) for part in command]
    session["settings"] = {name: _without_folder(value) for name, value in session["settings"].items()}
    return run | {"machine_info": machine, "commit_info": {}, "stepcost": session}


def _without_folder(value: Any) -> Any:
    """Return a path's last part, and anything else as it is."""
    if isinstance(value, str) and value.endswith(".npz"):
        return PurePath(value).name
    return value


def main(arguments: list[str]) -> int:
    """Scrub one file into another; return the exit code."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    saved, reference = map(Path, arguments)
    reference.write_text(json.dumps(scrubbed(json.loads(saved.read_text())), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

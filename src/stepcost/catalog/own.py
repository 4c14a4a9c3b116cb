"""Models and optimizers of the user's own, named by where they are defined."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

FORMS = "package.module:name or ./file.py:name"


def is_own(name: str) -> bool:
    """Whether a name says where something of the user's own is defined."""
    return ":" in name and not name.startswith("timm:")


def find_own(name: str) -> Any:
    """Return the object called ``package.module:name`` or ``path/file.py:name``.

    Both are looked for from the current directory, whatever started the process. Raises ``ValueError`` in one
    line where it cannot be imported.
    """
    where, _, attribute = name.rpartition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(_from_file(Path(where)) if where.endswith(".py") else _module(where), attribute)
    except SystemExit as error:
        raise ValueError(f"{name!r} cannot be imported: it calls sys.exit({error.code!r})") from error
    except Exception as error:
        raise ValueError(f"{name!r} cannot be imported: {error}; it takes {FORMS}") from error


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _from_file(path: Path) -> Any:
    """Import a file once under its own name, so that its neighbours can be imported from it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where pickling looks for its classes
    spec.loader.exec_module(module)
    return module

"""``python -m stepcost``: the command."""

import sys

from stepcost.cli import main

sys.exit(main())

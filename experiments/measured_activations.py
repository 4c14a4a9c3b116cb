"""Measure on a GPU which modules of a training step keep most for backward.

``python -m experiments.measured_activations resnet152:sgd:64:32`` (model, optimizer, batch size, image size)
takes the warm-up steps of a measured configuration, records the steady one and prints the table that
``stepcost predict --activations`` predicts; ``--json FILE`` writes all modules.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from experiments.arguments import CONFIGURATION, configuration, parser_of
from stepcost.activations import ModuleActivations, as_rows, print_activations
from stepcost.failures import MeasureError
from stepcost.measuring.activations import kept_by_module, record_by_module
from stepcost.measuring.configuration import WARM_UP_STEPS, Configuration
from stepcost.measuring.process import Worker


class Activations(Configuration):
    """A configuration, held by a child, that can say what its modules keep."""

    def activations(self) -> list[ModuleActivations]:
        """Record a steady step. Raises `HistoryUnavailable` where the modules' bytes do not add up."""
        for _ in range(WARM_UP_STEPS):
            self.step()
        return kept_by_module(
            *record_by_module(self.training_step, self.batch, torch.device(self.request.device))
        )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = parser_of("measured_activations", __doc__)
    parser.add_argument("configuration", type=configuration, metavar=CONFIGURATION)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all modules to a file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no GPU here; stepcost predict --activations does without one")
    request = options.configuration
    try:
        with Worker("experiments.measured_activations:Activations", request) as worker:
            found = worker.call("activations")
    except MeasureError as error:
        parser.error(str(error))
    gpu = torch.cuda.get_device_name(request.device)
    print_activations(found, f"measured on {gpu}")
    if options.json:
        answer = asdict(request) | {"source": "measured", "gpu": gpu, "torch": torch.__version__}
        answer |= {"activation_bytes": sum(one.bytes for one in found)}
        options.json.write_text(json.dumps(answer | {"activations_by_module": as_rows(found)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

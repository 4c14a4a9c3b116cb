"""Ten epochs on real images: accuracy and wall time by epoch, for questions 3b to 3d.

The clock runs while training and stops for evaluation; warm-up (lazy kernels, cuDNN,
graph capture) happens before it, on the same data, and is undone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from stepcost.catalog.datasets import Dataset, images_per_epoch
from stepcost.catalog.engines import ENGINES
from stepcost.catalog.models import STAND_IN, is_prebuilt
from stepcost.catalog.optimizers import find_optimizer
from stepcost.catalog.schedules import SCHEDULES
from stepcost.measuring.child import enter_phase
from stepcost.measuring.launch import Launch, build_step, capture, set_learning_rate, warm_up
from stepcost.prepare import as_weights, memory_format, prepare
from stepcost.request import Request
from stepcost.step import logits_of
from stepcost.workload import workload_of

EVALUATION_BATCH = 256
Epoch = Callable[[], Iterator[int]]
"""Trains one epoch: takes a step each time it is asked for the next, and gives the step's images."""


class Study:
    """A model in training on one data set, in a child process."""

    def __init__(
        self,
        request: Request,
        dataset: Dataset,
        learning_rate: float,
        schedule: str,
        exact: bool = False,
    ) -> None:
        """Build model, optimizer and data; nothing is trained yet.

        ``schedule`` is a name in ``stepcost.catalog.schedules``. ``exact`` computes in fp64: a deep
        network multiplies rounding, so in fp32 two right programs drift apart within a few steps.
        """
        enter_phase("build")
        if exact:
            torch.set_default_dtype(torch.float64)
        self.request = request
        self.device = torch.device(request.device)
        self.on_gpu = self.device.type == "cuda"
        if self.on_gpu:
            torch.cuda.set_device(self.device)
        elif (
            request.model == STAND_IN
        ):  # too small to gain from threads, which wait for each other on a busy host
            torch.set_num_threads(1)
        torch.manual_seed(request.seed)
        ready = is_prebuilt(
            request.model,
            num_classes=request.num_classes,
            image_size=request.image_size,
            seed=request.seed,
        )
        self.model = prepare(workload_of(request, prebuilt=ready).build(), request)
        self.model = self.model.to(self.device).train()
        self.memory_format = memory_format(request)
        self.captured = ENGINES[request.engine].captured
        self.learning_rate = learning_rate
        self.scheduled = schedule != "constant"
        self.rate_factor = SCHEDULES[schedule]
        self.step = build_step(request, self.model, learning_rate=learning_rate, scheduled=self.scheduled)
        self.train_images = torch.from_numpy(dataset.train_images)
        self.train_labels = torch.from_numpy(dataset.train_labels)
        self.test_images = torch.from_numpy(dataset.test_images).to(self.device)
        self.test_labels = torch.from_numpy(dataset.test_labels).to(self.device)
        # Per-channel mean and deviation of the training images, in units of a pixel (0 to 255).
        pixels = self.train_images.to(torch.get_default_dtype())
        self.mean = pixels.mean(dim=(0, 2, 3)).view(1, 3, 1, 1).to(self.device)
        self.deviation = pixels.std(dim=(0, 2, 3)).clamp_min(1.0).view(1, 3, 1, 1).to(self.device)
        self.loss_sum = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), device=self.device, dtype=torch.int64)
        self.images_per_epoch = images_per_epoch(len(self.train_images), request.batch_size)
        self.order = torch.Generator().manual_seed(request.seed)
        self.steps_taken = 0

    def run(self, epochs: int, drop_last: bool = False) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Train for ``epochs`` epochs; yield each epoch's record and return all with the outer clock.

        ``drop_last`` leaves a last batch that is not full out of each epoch.

        A record has ``epoch`` (from 1), ``train_seconds`` (this epoch, evaluation off the
        clock), ``train_loss`` and ``train_accuracy`` (means over the epoch while it trains)
        and ``test_accuracy`` (afterwards, in evaluation mode).
        """
        self.images_per_epoch = images_per_epoch(len(self.train_images), self.request.batch_size, drop_last)
        steps = epochs * self.steps_per_epoch
        enter_phase("warm-up")
        train_epoch = self._prepare()
        self.evaluate()
        records: list[dict[str, Any]] = []
        evaluation_s = 0.0
        self._synchronize()
        outer_start = time.perf_counter()
        for epoch in range(1, epochs + 1):
            enter_phase(f"epoch {epoch}")
            self.loss_sum.zero_()
            self.correct.zero_()
            self._synchronize()
            start = time.perf_counter()
            for _ in train_epoch():
                self._next_rate(steps)
            self._synchronize()
            stop = time.perf_counter()
            test_accuracy = self.evaluate()
            evaluation_s += time.perf_counter() - stop
            images = self.images_per_epoch
            record = {
                "epoch": epoch,
                "train_seconds": stop - start,
                "train_loss": self.loss_sum.item() / images,
                "train_accuracy": self.correct.item() / images,
                "test_accuracy": test_accuracy,
            }
            records.append(record)
            yield record
        wall_s = time.perf_counter() - outer_start - evaluation_s
        return {"epochs": records, "wall_s": wall_s}

    def step_s(self) -> float:
        """Return the seconds of one full step, after one that warms up; both train."""
        size = min(self.request.batch_size, len(self.train_images))
        images, labels = self.train_images[:size].to(self.device), self.train_labels[:size].to(self.device)
        self._train_on(images, labels)
        self._synchronize()
        start = time.perf_counter()
        self._train_on(images, labels)
        self._synchronize()
        return time.perf_counter() - start

    def losses(self) -> dict[str, Any]:
        """Train one epoch and read the loss of every step, to hold one engine against another.

        Returns ``losses`` (mean over the step's images), and what the steps counted: ``norm_steps``,
        the batches that the first batch norm has seen, and ``optimizer_steps``, the optimizer's own
        count; ``None`` where the model or the optimizer counts none.
        """
        train_epoch = self._prepare()
        enter_phase("epoch of single steps")
        losses = []
        self.loss_sum.zero_()
        for images in train_epoch():
            losses.append(self.loss_sum.item() / images)
            self.loss_sum.zero_()
            self._next_rate(self.steps_per_epoch)
        norms = (b for name, b in self.model.named_buffers() if name.endswith("num_batches_tracked"))
        counts = (state["step"] for state in self.step.optimizer.state.values() if "step" in state)
        return {"losses": losses, "norm_steps": _first(norms), "optimizer_steps": _first(counts)}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, the last partial batch included."""
        return -(-self.images_per_epoch // self.request.batch_size)

    def _next_rate(self, steps: int) -> None:
        """Set the rate of the next step, of ``steps`` in all, after one was taken."""
        self.steps_taken += 1
        if self.scheduled:
            rate = self.learning_rate * self.rate_factor(self.steps_taken / steps)
            set_learning_rate(self.step.optimizer, rate)

    def evaluate(self) -> float:
        """Accuracy on the test images, as a fraction, in evaluation mode."""
        self.model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in zip(
                self.test_images.split(EVALUATION_BATCH),
                self.test_labels.split(EVALUATION_BATCH),
                strict=True,
            ):
                logits = logits_of(self.model(self._normalised(images)))
                correct += int((logits.argmax(1) == labels).sum())
        self.model.train()
        return correct / len(self.test_labels)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Images of the size asked for, zero mean and unit deviation by channel."""
        scaled: torch.Tensor = as_weights((images - self.mean) / self.deviation, self.request)
        size = self.request.image_size or 0
        if scaled.shape[-1] == size:
            return scaled
        return torch.nn.functional.interpolate(scaled, size=(size, size), mode="bilinear", antialias=True)

    def _train_on(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        labels = labels.long()
        images = self._normalised(images).contiguous(memory_format=self.memory_format)
        loss, logits = self.step((images, labels))
        self.loss_sum += loss * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()

    def _prepare(self) -> Epoch:
        """Warm up, undo what that trained, and return what trains one epoch."""
        before = copy.deepcopy(self.model.state_dict())
        optimizer_before = copy.deepcopy(self.step.optimizer.state_dict())
        epoch = self._captured_epoch() if self.captured else self._plain_epoch()
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(before[name])
        if self.captured:
            self._reset_captured_optimizer()
        else:
            self.step.optimizer.load_state_dict(optimizer_before)
        return epoch

    def _reset_captured_optimizer(self) -> None:
        """Put state back to its start in place: a graph keeps the addresses of the tensors."""
        optimizer = self.step.optimizer
        starts_at = dict(find_optimizer(self.request.optimizer).state_starts_at)
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    value.fill_(starts_at.get(name, 0.0))

    def _plain_epoch(self) -> Epoch:
        data = TensorDataset(self.train_images, self.train_labels)

        def epoch() -> Iterator[int]:
            # Not torch's RandomSampler: it draws once more at its end, so that from the second epoch on
            # the order would not be that of a captured epoch.
            order = torch.randperm(len(data), generator=self.order)[: self.images_per_epoch].tolist()
            loader = DataLoader(data, self.request.batch_size, sampler=order, pin_memory=self.on_gpu)
            for images, labels in loader:
                self._train_on(
                    images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
                )
                yield len(images)

        for size in self._batches():
            images, labels = (
                self.train_images[:size].to(self.device),
                self.train_labels[:size].to(self.device),
            )
            warm_up(partial(self._train_on, images, labels), captured=False)
        return epoch

    def _batches(self) -> set[int]:
        """Sizes of the batches of an epoch: full ones and, where there is one, the last partial one."""
        size = min(self.request.batch_size, len(self.train_images))
        return {size, self.images_per_epoch % size or size}

    def _captured_epoch(self) -> Epoch:
        images, labels = self.train_images.to(self.device), self.train_labels.to(self.device)
        size = min(self.request.batch_size, len(images))
        captured: dict[int, tuple[torch.Tensor, Launch]] = {}
        for batch in self._batches():
            index = torch.arange(batch, device=self.device)

            def work(index: torch.Tensor = index) -> None:
                self._train_on(images[index], labels[index])

            warm_up(work, captured=True)
            captured[batch] = (index, capture(work))

        def epoch() -> Iterator[int]:
            order = torch.randperm(len(images), generator=self.order)[: self.images_per_epoch]
            for chosen in order.to(self.device, non_blocking=True).split(size):
                index, replay = captured[len(chosen)]
                index.copy_(chosen)
                replay()
                yield len(chosen)

        return epoch

    def _synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def _first(counts: Iterator[Any]) -> int | None:
    """Return the first of some counters as a number."""
    found = next(counts, None)
    return None if found is None else int(found)

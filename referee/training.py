"""Train what a campaign needs before it is needed: side by side, on as many processes as there are cores."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from defenses.training import Named
from oracle_server.victims.split_models import train_evaluation, train_target
from oracle_server.victims.splits import split_named

__all__ = ["Training", "train_ahead"]


@dataclass(frozen=True)
class Training:
    """One model: a split's target of some architecture, or (`architecture` None) its evaluation network."""

    split: str
    architecture: str | None = None
    seed: int = 0
    device: str = "cpu"
    max_steps: int | None = None
    defence: Named | None = None

    def __call__(self) -> str:
        """Train it, or find it in the cache, where whoever needs it will look; what it was, in words."""
        torch.set_num_threads(1)
        split = split_named(self.split)
        if self.architecture is None:
            train_evaluation(split, seed=self.seed, device=self.device)
            return f"the evaluation network of {self.split}"
        known: dict[str, Any] = {"seed": self.seed, "device": self.device, "defence": self.defence}
        train_target(split, self.architecture, max_steps=self.max_steps, **known)
        return f"{self.architecture} on {self.split}" + (f" with {self.defence[0]}" if self.defence else "")


def train_ahead(trainings: Iterable[Training], say: Callable[[str], None]) -> None:
    """Train all of them. `say` hears what is ready. An exception, or Ctrl-C, ends the processes."""
    todo = list(dict.fromkeys(trainings))
    with get_context("spawn").Pool(min(len(todo), os.cpu_count() or 1), _begin) as pool:
        for number, ready in enumerate(pool.imap_unordered(_train, todo), 1):
            say(f"training: {number} of {len(todo)} models ready ({ready})")


def _train(training: Training) -> str:
    return training()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end us, and a training would go on for minutes."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

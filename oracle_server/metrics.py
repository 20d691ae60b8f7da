"""What the parts of a server tell while they work: calls, queues, forward passes, charges, commits.

`Metrics` counts nothing, which is what a server does without `--metrics-port`; see `prometheus.py` for one that counts.
No score, answer or key is ever told, nor anything of one: methods, statuses, reasons, ids of models, rows, seconds.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["UNCOUNTED", "Metrics", "Passes"]


class Passes:
    """What the queue of one model tells. This one counts nothing."""

    def waited(self, seconds: float) -> None:
        """A request ended that had waited so long, from its admission until its first row went into a forward pass."""

    def computed(self, rows: int, seconds: float) -> None:
        """A forward pass of so many rows has ended."""


class Metrics:
    """What a server tells, from any of its threads. This one counts nothing, and nobody is shown it.

    address  host:port where the figures are shown
    """

    address: str | None = None

    def calls(self, rpc: str) -> Callable[[str, str | None], None]:
        """What is told how each call of a method ended: its gRPC status and, if it was refused, the reason."""
        return lambda status, reason: None

    def passes(self, model: str, waiting: Callable[[], int]) -> Passes:
        """For the queue of a model, `name/version`, in which `waiting()` rows wait."""
        return Passes()

    def charged(self, model: str, rows: int) -> None:
        """So many rows of one request are charged, and on disk."""

    def retried(self, model: str) -> None:
        """A request is answered again, for free."""

    def committed(self, seconds: float) -> None:
        """A transaction of charges took so long until it was on disk."""

    async def start(self) -> None:
        """Show the figures, from now on, to whoever asks."""

    async def stop(self) -> None:
        """Show them to nobody any more."""


UNCOUNTED = Metrics()

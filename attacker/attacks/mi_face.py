"""MI-Face: the image of a person that a face classifier is most confident about, by gradient descent.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, Algorithm 1 and sections 5.1-5.2.

    here                 paper      meaning
    max_steps            alpha      most steps
    patience             beta       stop when the cost is not below its maximum over that many steps before
    confidence           gamma      stop when the target's score reaches it
    step                 lambda     length of a gradient step
    cost                 c          1 - f_label(x) ("probability"), or -log f_label(x) ("log")
    momentum             -          share of the last move that is kept; 0 in the paper
    process              PROCESS    what happens to an iterate after its step: "none", or "denoise", the clean-up of
                                    Yang et al., CCS 2019, section 5.5, after every `process_every` steps
    x, c                 x_i, c     the iterates and their costs, one row for each target
    T, live              -          number of targets; the rows of those that have not stopped
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from attacker.attacks.denoise import denoising
from attacker.needs import Needs
from attacker.public import public_images
from attacker.snapshot import Snapshot, on_ladder

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["Cost", "MIFace", "Process", "Slope", "WhiteBox", "cost_at", "first_image"]

Cost = Literal["probability", "log"]
Process = Callable[[Tensor, int], Tensor]  # of iterates (N, *shape), and of the number of steps that led to them


class Slope(Protocol):
    """Where costs and gradients come from: the weights here, differences of scores in `numeric`."""

    def cost(self, x: Tensor, live: Tensor) -> Tensor:
        """c (N,) float64 of the images x (N, *input_shape), whose targets are those at `live` (N,)."""

    def gradient(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of c at the rows `keep` of the last x, and which of its rows lead anywhere."""

    def mark(self, i: int) -> float:
        """What has been paid after i steps."""

    def due(self, i: int) -> bool:
        """Whether a snapshot is wanted after i steps."""


@dataclass(frozen=True)
class MIFace:
    """Algorithm 1 with downloaded weights, all targets in one batch.

    `start` is the first image, the same for all: "zeros", or "public_mean", the mean of `public`/images.npy (N,
    *input_shape). Snapshots are taken at 100, 300, 1k, 3k, ... steps and at the end; their images are the best
    iterates so far, their extra `steps` (T,) int64 is the number of steps of each target.

    Differences from the reference:
    - Line 8 stops at c <= gamma, which with gamma = 0.99 holds at the first step, and the text has "at least as great".
      gamma is read as a confidence: stop when the score reaches gamma, c <= 1 - gamma.
    - The paper reports 5.6 epochs and 1.4 s for softmax regression with lambda = 0.1. These do not fit together: from a
      zero image 40 people took 640 to 3,500 steps with 0.1, and a hundredth of that with 10, to the same images
      (correlation 0.9998). The defaults are those of section 5.2.
    - PROCESS is the clip to the legal range of an input (the paper's is the identity): an oracle would refuse the rest.
      With process="denoise" it is also Yang's, "a NLMeans denoising filter followed by a Gaussian sharpening filter",
      for images (C, H, W). Cleaning costs a hundred times as much as a step, and after every one it takes back what a
      small step has won, hence `process_every`. The best iterate may be one that was not cleaned.
    - Line 6 waits for beta steps, since its maximum is over beta costs. AUXTERM is 0 (section 5.2).
    - `cost="log"` descends on -log f. The gradient of 1 - f is f times that one, and f is next to nothing where a model
      with a hidden layer looks at a black image: the paper's cost stands still there. Both have the same minimum and
      stop at the same score.
    - Targets advance together; one that stops leaves the batch. The answer to each is that of a run of its own.
    """

    needs: ClassVar[Needs] = Needs.WEIGHTS
    kind: ClassVar[str] = "white box, gradient descent"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, Algorithm 1"

    max_steps: int = 5000
    patience: int = 100
    confidence: float = 0.99
    step: float = 0.1
    cost: Cost = "probability"
    momentum: float = 0.0
    start: Literal["zeros", "public_mean"] = "zeros"
    public: Path | None = None
    process: Literal["none", "denoise"] | bool = "none"  # a bool in `MIFaceCode` only
    process_every: int = 10

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`. Nothing is drawn at random: `seed` changes nothing."""
        x0 = first_image(self.start, self.public, oracle)
        f = WhiteBox(oracle.model(), targets, self.cost)
        yield from self.descend(f, x0, len(targets), oracle.low, oracle.high)

    def descend(
        self, f: Slope, x0: np.ndarray, T: int, low: float, high: float, process: Process | None = None
    ) -> Iterator[Snapshot]:
        """Lines 3-10, for T targets from the image x0, with costs and gradients from `f`; PROCESS is `process`, or by
        default what the parameters say.
        """
        if self.process not in ("none", "denoise"):
            raise ValueError(f"process={self.process!r} must be 'none' or 'denoise'")
        if process is None and self.process == "denoise":
            process = denoising(x0.shape, low, high, self.process_every)
        yield from self.descend_each(f, torch.from_numpy(x0).expand(T, *x0.shape), low, high, process)

    def descend_each(
        self, f: Slope, x0: Tensor, low: float, high: float, process: Process | None = None
    ) -> Iterator[Snapshot]:
        """Lines 3-10 from a first iterate for each target, (T, *shape); `ValueError` for a setting out of range."""
        if self.cost not in ("probability", "log"):
            raise ValueError(f"cost={self.cost!r} must be 'probability' or 'log'")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} must be at least 0 and below 1")
        x, T, enough = x0.clone(), len(x0), cost_at(self.confidence, self.cost)  # line 3
        v = torch.zeros_like(x) if self.momentum else None  # the last moves
        live, steps = torch.arange(T), torch.zeros(T, dtype=torch.int64)
        best, c_best = x.clone(), torch.full((T,), torch.inf, dtype=torch.float64)
        before = x  # x_{i-1}; `best` lags behind as long as the cost falls, so that images are seldom copied
        falling = torch.ones(T, dtype=torch.bool)  # is the last iterate the best one?
        last = torch.full((T, self.patience), torch.inf, dtype=torch.float64)  # the beta costs before this one
        shown = -1.0

        def snapshot(i: int) -> Snapshot:
            best[live[falling]] = x[falling]
            return Snapshot(best.numpy().copy(), f.mark(i), {"steps": steps.numpy().copy()})

        for i in range(self.max_steps + 1):  # line 4; its step from x_i to x_{i+1} stands at the end of the body
            c = f.cost(x, live)  # line 2
            better = c < c_best[live]
            lost = falling & ~better
            if lost.any():
                best[live[lost]] = before[lost]
            falling, c_best[live], steps[live] = better, torch.minimum(c, c_best[live]), i
            if f.due(i):
                yield (now := snapshot(i))
                shown = now.mark
            stop = (c >= last.amax(1)) | (c <= enough)  # lines 6 and 8
            last[:, i % self.patience] = c
            keep = (~stop).nonzero()[:, 0]
            if i == self.max_steps or not len(keep):
                break
            g, moves = f.gradient(keep)
            if not moves.all():  # nothing to follow: such a target would stand still for ever
                g, keep = g[moves], keep[moves]
            if len(keep) < len(live):
                gone = torch.ones(len(live), dtype=torch.bool).index_fill_(0, keep, False)
                best[live[gone & falling]] = x[gone & falling]
                x, live, falling, last = x[keep], live[keep], falling[keep], last[keep]
                v = None if v is None else v[keep]
                if not len(live):
                    break
            if v is not None:
                v = g = torch.add(g, v, alpha=self.momentum)
            before, x = x, torch.add(x, g, alpha=-self.step).clamp_(low, high)  # line 5
            if process is not None:
                x = process(x, i + 1)
        if f.mark(i) > shown:
            yield snapshot(i)  # line 10


class WhiteBox:
    """Costs and gradients from the weights: one pass forward and one back for all targets.

    model maps (N, *input_shape) float32 to logits (N, C); targets are class indices, one for each row of a full batch.
    """

    def __init__(self, model: nn.Module, targets: Sequence[int], cost: Cost = "probability") -> None:
        self._model, self._targets, self._log = model, torch.as_tensor(targets), cost == "log"

    def cost(self, x: Tensor, live: Tensor) -> Tensor:
        self._x = x.detach().requires_grad_()
        with torch.enable_grad():
            self._z = self._model(self._x)
        log_p, label = self._z.detach().double().log_softmax(1), self._targets[live]
        log_score = log_p.gather(1, label[:, None])
        self._p, self._score = log_p.exp(), log_score.exp()
        self._hot = nn.functional.one_hot(label, log_p.shape[1])
        c: Tensor = -log_score[:, 0] if self._log else 1 - self._score[:, 0]
        return c

    def gradient(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        dc_dz = self._p - self._hot  # of -log f; that of 1 - f is f times as long
        dc_dz = (dc_dz if self._log else self._score * dc_dz).to(self._z.dtype)
        (g,) = torch.autograd.grad(self._z, self._x, dc_dz)
        moves = dc_dz.any(1)
        return (g, moves) if len(keep) == len(g) else (g[keep], moves[keep])

    def mark(self, i: int) -> float:
        return float(i)

    def due(self, i: int) -> bool:
        return on_ladder(i)


def cost_at(confidence: float, cost: Cost) -> float:
    """The cost of an image whose target has this score."""
    if cost == "probability":
        return 1 - confidence
    return -math.log(confidence) if confidence > 0 else math.inf


def first_image(start: str, public: Path | None, oracle: Oracle) -> np.ndarray:
    """The first image of a descent, (*input_shape) float32 in the legal range; `ValueError` says what is amiss."""
    shape = tuple(oracle.input_shape)
    if start == "zeros":
        image = np.zeros(shape, np.float32)
    elif start != "public_mean":
        raise ValueError(f"start={start!r} must be 'zeros' or 'public_mean'")
    elif public is None:
        raise ValueError("start='public_mean' needs public data: name its folder (images.npy) or use start='zeros'")
    else:
        image = public_images(public, oracle).mean(0, dtype=np.float64).astype(np.float32)
    return image.clip(oracle.low, oracle.high)

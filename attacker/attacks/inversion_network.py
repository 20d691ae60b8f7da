"""Inversion network: a second network, trained on an oracle's truncated answers for other images, inverts the first.

Z. Yang, J. Zhang, E.-C. Chang, Z. Liang, "Neural Network Inversion in Adversarial Setting via Background Knowledge
Alignment", CCS 2019, sections 4.1 and 4.2; section 5.5 for classes, section 5.7 for features.

    here                 paper      meaning
    public               D_aux      the auxiliary set, images (N, *input_shape)
    answers              trunc_m(F_w(x))  what the key's contract releases on them, (N, K), NaN where withheld
    G                    G_theta    the network (attacker/decoder.py): answer to image
    given                f          answers that a benign key got on a victim's images; without them the m = 1
                                    answers of section 5.5, a one-hot vector for each class
    rescale              z, c       equation 9; False feeds the scores as they are
    held_out             -          share of the auxiliary set on which the best epoch is chosen
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attacker.checkpoint import Training
from attacker.decoder import Decoder, save_decoder
from attacker.needs import Needs
from attacker.oracle import BudgetSpent
from attacker.poses import pose_subset
from attacker.public import public_images
from attacker.released import as_table, count_answers, read_answers
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["InversionNetwork"]

_NETWORK, _CHECKPOINT = "inversion_network.pt", "training.pt"
_AT_ONCE = 500  # images of one pass without gradient

Ask = Callable[[np.ndarray], Tensor]  # places in the auxiliary set (n,) -> answers (n, K)


@dataclass(frozen=True)
class InversionNetwork:
    """Minimise |G(trunc_m(F(a))) - a|^2 over the auxiliary set (equation 7), then invert what is given in one pass.

    Every image of `public`/images.npy is asked once, whatever the contract releases: full or truncated scores, labels,
    features. Targets are the entries of `given`, a .npz file with `answers` (N, K), NaN where withheld; without it they
    are classes. The network of the best epoch is saved as inversion_network.pt, for `attacker invert`; a run that was
    stopped goes on after its last epoch.

    The only snapshot comes at the end; its mark is the size of the auxiliary set over the number of targets. Extras:
    `training_mse` and `held_out_mse` (E,) of each epoch, on pixels in [0, 1]; `best_epoch` (); `classes_seen` (), how
    many different decisions the auxiliary set got: an estimate of C. The seconds until each epoch's end are in
    training.json.

    `withheld` says what a withheld score is to the network: "told", a value of its own with a flag (the truncation
    method), or "zero", a score of 0, for answers that are truncated only when they are inverted. With a key that
    releases everything that is the prior work of section 5.3: trained on full predictions, fed truncated ones.
    `pose` keeps only the auxiliary images of one pose ("left", "upright", "right"; Figure 7), `rows` so many of them
    (0: all). `queries_first=False` asks again for each batch at each step instead, as a network that has the classifier
    in its graph would: the same answers for many times the price.

    Differences from the reference:
    - The best epoch is chosen on held-out auxiliary images; the reference takes the target's training photos.
    - The optimiser and its defaults are the reference's; `decay="cosine"` lowers the learning rate to 0 over the run,
      which allows a larger one.
    - Two dense layers of `hidden` units come before the first block; `hidden=0` leaves them out.
    - Outputs are standardised before c is added; c alone would be absorbed by the first batch norm.
    - A score of 0 counts as half the rounding step, or as the smallest score seen: its logarithm is finite.
    """

    needs: ClassVar[Needs] = Needs.LABELS
    models: ClassVar[tuple[str, ...]] = ("neural", "features")
    given_optional: ClassVar[bool] = True
    kind: ClassVar[str] = "black box, training-based"
    paper: ClassVar[str] = "Yang et al., CCS 2019"

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 2e-4
    decay: Literal["none", "cosine"] = "none"
    width: int = 32
    hidden: int = 256
    rescale: bool = True
    withheld: Literal["told", "zero"] = "told"
    held_out: float = 0.1
    pose: Literal["all", "left", "upright", "right"] = "all"
    rows: int = 0
    queries_first: bool = True
    public: Path | None = None
    given: Path | None = None

    def entries(self) -> int | None:
        return None if self.given is None else count_answers(self.given)

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Invert the answers at `targets` of `given`, or the classes `targets`; `seed` draws the start and the order
        of images.
        """
        self._check()
        x = self._auxiliary(oracle, seed)
        given = None if self.given is None else read_answers(self.given, _outputs(oracle))
        answers, spent = _asked(oracle, x)
        x = x[: len(answers)]
        decisions = np.nanargmax(answers, axis=1)
        rounded = oracle.contract.round_to
        seen = answers[np.nan_to_num(answers) > 0]
        least = rounded / 2 if rounded else float(seen.min(initial=1.0))
        G, curve = self._trained(oracle, x, answers, min(max(least, 1e-300), 0.5), seed)
        save_decoder(G, oracle.folder / _NETWORK)
        f = _one_hot(answers.shape[1], targets) if given is None else given[np.asarray(targets)]
        if self.withheld == "zero":
            f = np.nan_to_num(f, nan=0.0)
        images = G.invert(f) * np.float32(oracle.high - oracle.low) + np.float32(oracle.low)
        extras = {name: np.array(curve[name]) for name in ("training_mse", "held_out_mse")}
        extras |= {"best_epoch": np.array(int(np.argmin(curve["held_out_mse"]))) + 1}
        extras |= {"classes_seen": np.array(len(np.unique(decisions)))}
        yield Snapshot(images, oracle.spent / len(targets), extras)
        if spent is not None:
            raise spent

    def _check(self) -> None:
        """`ValueError` for a setting out of range."""
        if min(self.epochs, self.batch_size, self.width) < 1 or not self.learning_rate > 0:
            raise ValueError("epochs, batch_size, width and learning_rate must be above 0")
        if min(self.rows, self.hidden) < 0:
            raise ValueError("rows and hidden must not be below 0")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} must lie between 0 and 1: it decides which epoch is best")
        for name, known in (("decay", ("none", "cosine")), ("withheld", ("told", "zero"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")

    def _auxiliary(self, oracle: Oracle, seed: int) -> np.ndarray:
        """The images to ask for, (N, *input_shape) float32, in an order drawn from `seed`."""
        if self.public is None:
            raise ValueError("an inversion network needs an auxiliary set: name a folder with images.npy (--public)")
        x = np.asarray(public_images(self.public, oracle), np.float32).clip(oracle.low, oracle.high)
        if self.pose != "all":
            x = x[pose_subset(x, self.pose)]
        x = x[np.random.default_rng(seed).permutation(len(x))[: self.rows or None]]
        if len(x) * self.held_out < 1 or len(x) < 4:
            raise ValueError(f"{len(x)} auxiliary images are too few to hold out {self.held_out:g} of them: name more")
        return x

    def _trained(
        self, oracle: Oracle, x: np.ndarray, answers: np.ndarray, least: float, seed: int
    ) -> tuple[Decoder, dict[str, list[float]]]:
        """G of the best epoch, and the curves of all epochs."""
        device = oracle.device
        held = max(1, round(self.held_out * len(x)))
        unit = torch.from_numpy((x - oracle.low) / (oracle.high - oracle.low)).to(device)
        f = torch.from_numpy(answers).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rescale = self.rescale and oracle.kind == "neural"
            G = Decoder(f.shape[1], tuple(x.shape[1:]), self.width, hidden=self.hidden, rescale=rescale, least=least)
        G = G.to(device).to(memory_format=torch.channels_last)  # a seventh of the time less on a CPU
        G.standardise(f[held:])
        optimiser = torch.optim.Adam(G.parameters(), self.learning_rate, betas=(0.5, 0.999), amsgrad=True)
        batches = max(1, (len(x) - held) // self.batch_size)  # a rest would be a noisy batch of its own
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate(self.epochs * batches))
        of, curves = f"{self!r} {seed} {_digest(x, answers)}", ("training_mse", "held_out_mse")
        path = oracle.folder / _CHECKPOINT
        state = Training(path, of, G, optimiser, schedule, curves=curves, best="held_out_mse")
        if self.queries_first:  # asking at each step is in the journal alone: it goes through all of it again
            state.resume()
        ask = _each_step(oracle, x) if not self.queries_first else lambda places: f[places]
        before, started = state.seconds, time.perf_counter()
        for epoch in range(state.epochs, self.epochs):
            order = held + np.random.default_rng((seed, epoch)).permutation(len(x) - held)
            G.train()
            total = torch.zeros((), device=device)
            for places in np.array_split(order, batches):
                loss = functional.mse_loss(G(ask(places)), unit[places])  # equation 7
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.detach() * len(places)
            found = torch.from_numpy(G.invert(answers[:held])).to(device)
            held_out = float(functional.mse_loss(found, unit[:held]))
            seconds = before + time.perf_counter() - started
            state.add(seconds, training_mse=float(total) / len(order), held_out_mse=held_out)
            oracle.notice(f"epoch {epoch + 1} of {self.epochs}: held-out error {held_out:.4f}")
        state.keep_best()
        return G, state.curve

    def _rate(self, steps: int) -> Callable[[int], float]:
        if self.decay == "none":
            return lambda step: 1.0
        return lambda step: float(0.5 + 0.5 * np.cos(np.pi * min(step / steps, 1)))


def _asked(oracle: Oracle, x: np.ndarray) -> tuple[np.ndarray, BudgetSpent | None]:
    """Answers (N, K) on the first N images: all of them, unless the budget ends before."""
    tables: list[np.ndarray] = []
    batches = ((x[at : at + oracle.max_rows], None) for at in range(0, len(x), oracle.max_rows))
    try:
        for answer in oracle.stream(batches):
            tables.append(as_table(answer, oracle.classes))
    except BudgetSpent as error:
        if not tables:
            raise
        return np.concatenate(tables), error
    return np.concatenate(tables), None


def _each_step(oracle: Oracle, x: np.ndarray) -> Ask:
    def ask(places: np.ndarray) -> Tensor:
        return torch.from_numpy(as_table(oracle.query(x[places]), oracle.classes)).to(oracle.device)

    return ask


def _outputs(oracle: Oracle) -> int:
    return len(oracle.released) if oracle.kind == "features" else oracle.classes


def _one_hot(classes: int, targets: Sequence[int]) -> np.ndarray:
    """A score of 1 for each target, all others withheld: (T, C)."""
    f = np.full((len(targets), classes), np.nan)
    f[np.arange(len(targets)), np.asarray(targets)] = 1.0
    return f


def _digest(*arrays: np.ndarray) -> str:
    return "".join(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays)

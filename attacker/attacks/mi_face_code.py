"""MI-Face in the code of an autoencoder's first layer, with the paper's clean-up of every candidate.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 5.2, Algorithm 2 and Figure 7.

    here                 paper      meaning
    x                    x          the iterates, codes (T, K) in [0, 1]
    decoder, encoder     DECODE, ENCODE   parts that the model publishes: code to image, image to code
    classifier           f          the rest of the model, code to logits: classifier(encoder(image)) is the model
    process              PROCESS    whether PROCESS-DAE is used at all, and after every how many steps
    denoise              -          strength h of the non-local means, as a share of the range of an input
    sharpen              -          amount of the unsharp mask
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from attacker.attacks.denoise import clean, filters
from attacker.attacks.mi_face import Cost, MIFace, WhiteBox, first_image
from attacker.snapshot import Snapshot

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["MIFaceCode"]


@dataclass(frozen=True)
class MIFaceCode(MIFace):
    """`MIFace` whose candidates are codes; the image handed over is the decoded code, cleaned once more with `process`.

    It needs a model that publishes the parts encoder, decoder and classifier, and `process` needs scikit-image. The
    extra `code` (T, K) float32 is the best code of each target, `steps` (T,) its number of steps.

    Differences from the reference:
    - The paper names neither the filters' strengths nor their windows.
    - With lambda = 0.1 PROCESS-DAE takes back what a step has won: the default step is large, `max_steps` small.
    - It comes after every tenth step. Cleaning an image costs a hundred times as much as a step, and after every single
      one it does harm: of 30 people 0.47 were recognised then, 0.73 with the default, 0.70 without it (att30, from the
      public mean). The best iterate may be one that PROCESS-DAE has not seen, so images are cleaned once more before
      they are handed over.
    """

    kind: ClassVar[str] = "white box, gradient descent in a code"
    paper: ClassVar[str] = "Fredrikson et al., CCS 2015, Algorithm 2"

    max_steps: int = 150
    step: float = 10.0
    cost: Cost = "log"
    process: bool = True
    process_every: int = 10
    denoise: float = 0.05
    sharpen: float = 1.0

    def run(self, oracle: Oracle, targets: Sequence[int], seed: int) -> Iterator[Snapshot]:
        """Reconstruct one image of each of `targets`. Nothing is drawn at random: `seed` changes nothing."""
        if self.process_every < 1:
            raise ValueError(f"process_every={self.process_every} must be at least 1; process=False leaves it out")
        if self.process:
            filters()  # a missing package shows before the download
        x0 = torch.from_numpy(first_image(self.start, self.public, oracle))
        encoder, decoder, classifier = (oracle.model(part) for part in ("encoder", "decoder", "classifier"))

        def decode(x: Tensor) -> Tensor:  # Algorithm 2, the first line
            image: Tensor = decoder(x).clamp(oracle.low, oracle.high)
            return image

        def cleaned(images: Tensor) -> Tensor:  # the second and the third
            return clean(images, self.denoise, self.sharpen, oracle.low, oracle.high)

        def process_dae(x: Tensor, i: int) -> Tensor:
            if i % self.process_every:
                return x
            with torch.no_grad():
                code: Tensor = encoder(cleaned(decode(x))).clamp(0, 1)
                return code

        with torch.no_grad():
            first = encoder(x0[None]).clamp(0, 1).expand(len(targets), -1)
        f = WhiteBox(classifier, targets, self.cost)
        for found in self.descend_each(f, first, 0.0, 1.0, process_dae if self.process else None):
            with torch.no_grad():
                images = decode(torch.from_numpy(found.images))
            images = cleaned(images) if self.process else images
            yield Snapshot(images.numpy(), found.mark, found.extras | {"code": found.images})

"""A stacked denoising autoencoder with a softmax on top: the third target of Fredrikson, Jha and Ristenpart (CCS 2015).

Denoising autoencoders are those of P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol, "Stacked denoising
autoencoders", JMLR 11 (2010), with masking noise, sigmoid units, tied weights and cross-entropy of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

__all__ = ["Pretraining", "StackedAutoencoder"]


@dataclass(frozen=True)
class Pretraining:
    """Hyper-parameters of one layer's pre-training: Adam under a one-cycle learning rate.

    Attributes:
        epochs: passes over the training rows, for each layer.
        batch_size: rows in a step.
        learning_rate: the peak of the cycle.
        corruption: share of the inputs that are set to zero at random in every batch.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    corruption: float

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a pre-training must be above 0, not {getattr(self, name)}")
        if not 0 <= self.corruption < 1:
            raise ValueError(f"corruption must be in [0, 1), not {self.corruption}")


class StackedAutoencoder(nn.Module):
    r"""$z = V h_2 + c$ with $h_2 = \sigma(W_2 h_1 + b_2)$ and the code $h_1 = \sigma(W_1 x + b_1)$; no softmax at the
    end.

    Pre-training ties the decoder of each layer to its encoder, $\hat x = \sigma(W^T h + b')$, so noise that the start
    left in $W$ shows in every reconstruction and is trained away: rows of $W$ come to look like parts of faces, which
    an inversion follows. Fine-tuning then moves the encoder and leaves `decoder`, a copy of $W_1^T$ and $b'$, as it was
    pre-trained. Small steps keep the two together: on the faces, the error of a decoded training photo grows by a
    twentieth.

    Parts, as modules of their own; ``classifier(encoder(x))`` is ``forward(x)``:
        encoder: ``(N, *input_shape)`` in [0, 1] to codes ``(N, hidden[0])`` in [0, 1].
        decoder: codes to images ``(N, *input_shape)`` in [0, 1].
        classifier: codes to logits ``(N, classes)``.
    """

    def __init__(
        self, classes: int, input_shape: tuple[int, ...] = (1, 112, 92), hidden: tuple[int, int] = (1000, 300)
    ) -> None:
        super().__init__()
        if min(hidden) < 1:
            raise ValueError(f"hidden must be two numbers of at least 1, not {hidden}")
        pixels, code = prod(input_shape), hidden[0]
        self.input_shape, self.code = tuple(input_shape), code
        first, second = nn.Linear(pixels, code), nn.Linear(code, hidden[1])
        output, back = nn.Linear(hidden[1], classes), nn.Linear(code, pixels)
        for layer, spread in ((first, pixels**-0.5), (second, code**-0.5), (output, 0.1)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            back.weight.copy_(first.weight.T)
            back.bias.zero_()
        self.encoder = nn.Sequential(nn.Flatten(), first, nn.Sigmoid())
        self.decoder = nn.Sequential(back, nn.Sigmoid(), nn.Unflatten(1, self.input_shape))
        self.classifier = nn.Sequential(second, nn.Sigmoid(), output)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(images))
        return logits

    def parts(self) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
        """What is published beside the whole, by name, each with the shape of one of its rows."""
        return {
            "encoder": (self.encoder, self.input_shape),
            "decoder": (self.decoder, (self.code,)),
            "classifier": (self.classifier, (self.code,)),
        }

    def pretrain(self, images: Tensor, pretraining: Pretraining, draws: Generator) -> None:
        """Train both hidden layers and the decoder, in place, on `images` (N, *input_shape) without labels.

        Raises:
            ValueError: the loss is no longer finite.
        """
        layers = self.encoder[1], self.decoder[0], self.classifier[0]
        first, back, second = (cast(nn.Linear, layer) for layer in layers)
        bias = _denoise(first, images.flatten(1), pretraining, draws)
        with torch.no_grad():
            back.weight.copy_(first.weight.T)
            back.bias.copy_(bias)
            codes: Tensor = self.encoder(images)
        _denoise(second, codes, pretraining, draws)


def _denoise(layer: nn.Linear, inputs: Tensor, pretraining: Pretraining, draws: Generator) -> Tensor:
    """Train `layer` to restore corrupted `inputs` (N, in) in [0, 1]; returns the bias b' (in,) of its tied decoder.

    The bias starts where it alone gives the mean input, so that the weights are left with what tells inputs apart.
    """
    back = nn.Parameter(inputs.mean(0).clamp(1e-3, 1 - 1e-3).logit())
    batches = -(-len(inputs) // pretraining.batch_size)
    rate = pretraining.learning_rate
    optimiser = torch.optim.Adam([layer.weight, layer.bias, back], rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=pretraining.epochs * batches)
    for _ in range(pretraining.epochs):
        for batch in torch.randperm(len(inputs), generator=draws).split(pretraining.batch_size):
            clean = inputs[batch.to(inputs.device)]
            kept = torch.rand(clean.shape, generator=draws).to(clean.device) >= pretraining.corruption
            code = torch.sigmoid(layer(clean * kept))
            restored = functional.linear(code, layer.weight.T, back)
            loss = functional.binary_cross_entropy_with_logits(restored, clean, reduction="sum") / len(clean)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    if not torch.isfinite(loss):
        raise ValueError(f"the pre-training diverged: lower the learning rate of {pretraining}")
    return back.detach()

"""A generator in two parts: a mapping from codes to styles, and a synthesis that takes one style for each layer.

After T. Karras, S. Laine, T. Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks",
CVPR 2019.

    here      meaning
    m, d      numbers in a code, in a style
    L         layers that take a style
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Layered"]


class Layered(nn.Module):
    """One code for all layers, or, in the extended latent space, one for each.

    Shapes:
        ``(N, m)`` or ``(N, L, m)`` to ``(N, C, H, W)``; `mapping` takes ``(N, m)`` to ``(N, d)``, `synthesis` takes
        ``(N, L, d)``.
    """

    def __init__(self, mapping: nn.Module, synthesis: nn.Module, layers: int) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.layers = mapping, synthesis, layers

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim == 2:
            style: Tensor = self.mapping(z)[:, None].expand(-1, self.layers, -1)
        else:
            style = self.mapping(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        images: Tensor = self.synthesis(style.contiguous())
        return images

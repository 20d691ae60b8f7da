"""Families of distributions over codes that are fitted by gradient: Gaussians, mixtures of them, normalising flows.

here   meaning
G      distributions that are fitted side by side, each with parameters of its own
n, m   draws of each, numbers in a code
v      draws (G, n, m), differentiable with respect to the parameters
log_q  log densities of the draws, (G, n)
near   codes (G, k, m)

`draw(n, generator)` gives v and log_q. A Gaussian and a flow begin as N(0, I), a mixture with means drawn so that it is
near it; `start(near)` begins around the mean of codes, or with a mixture's components at one each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "Flow", "Gaussian", "Mixture", "family"]

FAMILIES = ("gaussian", "mixture", "flow")

_APART = 0.9  # standard deviation of the means of a mixture's components at the start
_NARROW = 0.2  # that of its components, when they start at codes
_LEAST = 0.3  # of a Gaussian or a flow that starts at codes
_LOG_2_PI = math.log(2 * math.pi)


class Gaussian(nn.Module):
    """N(mean, diag(exp(2 log_scale)))."""

    def __init__(self, G: int, m: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mean, self.log_scale = nn.Parameter(torch.zeros(G, m)), nn.Parameter(torch.zeros(G, m))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        G, m = self.mean.shape
        u = torch.randn(G, n, m, generator=generator, dtype=self.mean.dtype)
        v = self.mean[:, None] + self.log_scale.exp()[:, None] * u
        return v, _standard(u) - self.log_scale.sum(1)[:, None]

    def start(self, near: Tensor) -> None:
        _fit(self, near)

    def divergence(self) -> Tensor:
        """KL(q || N(0, I)) in closed form, (G,)."""
        return 0.5 * ((2 * self.log_scale).exp() + self.mean.square() - 1 - 2 * self.log_scale).sum(1)


class Mixture(nn.Module):
    """K Gaussians of equal weight; n draws hold each component as often, up to one."""

    def __init__(self, G: int, m: int, generator: torch.Generator, K: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(_APART * torch.randn(G, K, m, generator=generator))
        self.log_scale = nn.Parameter(torch.full((G, K, m), 0.5 * math.log(1 - _APART**2)))

    @torch.no_grad()
    def start(self, near: Tensor) -> None:
        self.mean.copy_(near[:, torch.arange(self.mean.shape[1]) % near.shape[1]])
        self.log_scale.fill_(math.log(_NARROW))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        G, K, m = self.mean.shape
        first = torch.randint(K, (G, 1), generator=generator) if n % K else 0  # of those that are drawn once more
        order = torch.rand(G, n, generator=generator).argsort(1)
        k = ((order + first) % K)[..., None].expand(-1, -1, m)
        u = torch.randn(G, n, m, generator=generator, dtype=self.mean.dtype)
        v = self.mean.gather(1, k) + self.log_scale.gather(1, k).exp() * u
        white = (v[:, :, None] - self.mean[:, None]) * (-self.log_scale).exp()[:, None]  # (G, n, K, m)
        return v, (_standard(white) - self.log_scale.sum(2)[:, None]).logsumexp(2) - math.log(K)


class Flow(nn.Module):
    """v = mean + exp(log_scale) * T(u), u from N(0, I), T a chain of affine couplings (Dinh et al., "Density estimation
    using Real NVP", ICLR 2017) by the library zuko: bijective, so that a draw is a function of its u.
    """

    _forms: tuple[nn.Module, ...]

    def __init__(self, G: int, m: int, generator: torch.Generator, couplings: int = 4, hidden: int = 32) -> None:
        super().__init__()
        if m < 2:
            raise ValueError(f"a flow couples the numbers of a code, and this prior's have {m}: choose another family")
        self.mean, self.log_scale = nn.Parameter(torch.zeros(G, m)), nn.Parameter(torch.zeros(G, m))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            chains = [_Chain(m, couplings, hidden) for _ in range(G)]
        stacked, _ = torch.func.stack_module_state(list(chains))
        self._names = list(stacked)
        self.stacked = nn.ParameterList([stacked[name].detach() for name in self._names])
        self._forms = (chains[0],)  # the form of all; in a tuple it is no part of this, and not among what is fitted

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        G, m = self.mean.shape
        u = torch.randn(G, n, m, generator=generator, dtype=self.mean.dtype)
        v, log_volume = self._through(u, False)
        log_q = _standard(u) - log_volume - self.log_scale.sum(1)[:, None]
        return self.mean[:, None] + self.log_scale.exp()[:, None] * v, log_q

    def start(self, near: Tensor) -> None:
        _fit(self, near)

    def inverse(self, v: Tensor) -> Tensor:
        """The u (G, n, m) of draws v."""
        return self._through((v - self.mean[:, None]) * (-self.log_scale).exp()[:, None], True)[0]

    def _through(self, x: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        def one(parameters: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            through: tuple[Tensor, Tensor] = torch.func.functional_call(self._forms[0], parameters, (x, backwards))
            return through

        parameters = dict(zip(self._names, self.stacked, strict=True))
        through: tuple[Tensor, Tensor] = torch.func.vmap(one)(parameters, x)
        return through


class _Chain(nn.Module):
    """Couplings that begin as the identity, each with the other half of the numbers unchanged."""

    def __init__(self, m: int, couplings: int, hidden: int) -> None:
        super().__init__()
        try:
            from zuko.flows.coupling import GeneralCouplingTransform
        except ImportError:
            raise ValueError(
                "a flow is made of zuko's couplings, which are not installed: pip install 'mirage-range[attacks]'"
            ) from None
        masks = [torch.arange(m) % 2 == number % 2 for number in range(couplings)]
        parts = [GeneralCouplingTransform(m, 0, mask, hidden_features=[hidden]) for mask in masks]
        for part in parts:
            nn.init.zeros_(part.hyper[-1].weight)
            nn.init.zeros_(part.hyper[-1].bias)
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        log_volume = torch.zeros_like(x[..., 0])
        for part in reversed(self.parts) if backwards else self.parts:
            transform = part().inv if backwards else part()
            x, more = transform.call_and_ladj(x)
            log_volume = log_volume + more
        return x, log_volume


@torch.no_grad()
def _fit(q: Gaussian | Flow, near: Tensor) -> None:
    q.mean.copy_(near.mean(1))
    q.log_scale.copy_(near.std(1, correction=min(1, near.shape[1] - 1)).clamp(_LEAST, 1.0).log())


def _standard(u: Tensor) -> Tensor:
    """log density of N(0, I) over the last axis."""
    return -0.5 * (u.square().sum(-1) + u.shape[-1] * _LOG_2_PI)


Family = Gaussian | Mixture | Flow


def family(name: str, G: int, m: int, K: int, generator: torch.Generator) -> Family:
    """One of `FAMILIES`; K is the number of a mixture's components."""
    if name == "mixture":
        return Mixture(G, m, generator, K)
    return Gaussian(G, m, generator) if name == "gaussian" else Flow(G, m, generator)

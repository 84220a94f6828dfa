"""Distributions over actions, made of what a network says of an observation: how probable an action is, how one is drawn, how much
choice there is. The network itself stands in policy.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from penchant.errors import Refusal
from penchant.objectives.scored import wide

LOW, HIGH = -5.0, 2.0
"""Bounds of log σ: a density has no upper bound, and preferences would drive σ to 0 on what they prefer."""


class Actions(nn.Module):
    """A distribution over actions [.., acted], of features [.., size] that a network gives. Features in half precision are
    computed with in float32, and actions stay as they are: rounded to bfloat16 they would lie in other bins, or far out in a
    narrow density."""

    kind: str
    acted: int
    """Numbers of one action."""
    size: int
    """Features that are asked of the network."""

    def logp(self, features: Float[Tensor, "*n size"], actions: Float[Tensor, "*n acted"]) -> Float[Tensor, "*n"]:
        """log π(action | observation) in nats: of a density where actions are continuous."""
        raise NotImplementedError

    def entropy(self, features: Float[Tensor, "*n size"]) -> Float[Tensor, "*n"]:
        """Of the distribution, in nats; differential where actions are continuous."""
        raise NotImplementedError

    def noise(self, generator: torch.Generator) -> Tensor:
        """What one action is drawn from."""
        raise NotImplementedError

    def draw(self, features: Float[Tensor, "n size"], noise: Tensor, temperature: float = 1.0) -> Float[Tensor, "n acted"]:
        """Actions from noise [n, ..]; temperature scales how far they spread, 0 gives the mode (of a squashed one, its median)."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """Kind and settings, as JSON; `actions_of` makes the same again."""
        return {"kind": self.kind, "acted": self.acted}


class Gaussian(Actions):
    """N(μ(o), σ²) with one σ for each number, the same for all observations; log σ is a parameter, kept in [−5, 2]."""

    kind = "gaussian"

    def __init__(self, acted: int, log_std: float = -1.0) -> None:
        super().__init__()
        self.acted = self.size = acted
        self.log_std = nn.Parameter(torch.full((acted,), float(log_std)))

    def _of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return wide(features), wide(self.log_std).clamp(LOW, HIGH).expand_as(features)

    def logp(self, features: Float[Tensor, "*n size"], actions: Float[Tensor, "*n acted"]) -> Float[Tensor, "*n"]:
        mean, log_std = self._of(features)
        return _normal(actions, mean, log_std).sum(-1)

    def entropy(self, features: Float[Tensor, "*n size"]) -> Float[Tensor, "*n"]:
        _, log_std = self._of(features)
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def noise(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.acted, generator=generator)

    def draw(self, features: Float[Tensor, "n size"], noise: Tensor, temperature: float = 1.0) -> Float[Tensor, "n acted"]:
        mean, log_std = self._of(features)
        return mean + temperature * log_std.exp() * noise.to(mean)


class WideGaussian(Gaussian):
    """N(μ(o), σ(o)²): the network gives log σ too, which is kept in [−5, 2]."""

    kind = "wide-gaussian"

    def __init__(self, acted: int) -> None:
        Actions.__init__(self)
        self.acted, self.size = acted, 2 * acted

    def _of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = wide(features).chunk(2, -1)
        return mean, log_std.clamp(LOW, HIGH)


class Squashed(WideGaussian):
    """tanh of a WideGaussian, in (−1, 1): log π(a) = log N(u; μ, σ²) − Σ log(1 − tanh²u), u = artanh a (Haarnoja et al. 2018,
    arXiv 1812.05905, appendix C). An action at the very bound is read as one 10⁻⁶ within it."""

    kind = "squashed"
    INSIDE = 1 - 1e-6

    def logp(self, features: Float[Tensor, "*n size"], actions: Float[Tensor, "*n acted"]) -> Float[Tensor, "*n"]:
        mean, log_std = self._of(features)
        u = torch.atanh(actions.clamp(-self.INSIDE, self.INSIDE))
        return (_normal(u, mean, log_std) - _log_slope(u)).sum(-1)

    def entropy(self, features: Float[Tensor, "*n size"]) -> Float[Tensor, "*n"]:
        """By the trapezium rule over 8 σ to either side: there is no closed form. log(1 − tanh²u) is analytic for |Im u| < π/2, so
        with steps of σ/10 the rule errs by about exp(−10 π²/σ), 10⁻⁶ for the largest σ that is allowed."""
        mean, log_std = self._of(features)
        points = torch.linspace(-8, 8, 161, dtype=mean.dtype, device=mean.device)
        u = mean[..., None] + log_std.exp()[..., None] * points
        slope = (_log_slope(u) * (-0.5 * points**2).softmax(0)).sum(-1)
        return (log_std + 0.5 * math.log(2 * math.pi * math.e) + slope).sum(-1)

    def draw(self, features: Float[Tensor, "n size"], noise: Tensor, temperature: float = 1.0) -> Float[Tensor, "n acted"]:
        return torch.tanh(super().draw(features, noise, temperature))

    def drawn(
        self, features: Float[Tensor, "n size"], noise: Float[Tensor, "n acted"]
    ) -> tuple[Float[Tensor, "n acted"], Float[Tensor, "n"]]:
        """Actions from noise and their log π, with gradient through both. log π comes from u itself: tanh u loses it near the
        bounds."""
        mean, log_std = self._of(features)
        u = mean + log_std.exp() * noise
        return torch.tanh(u), (_normal(u, mean, log_std) - _log_slope(u)).sum(-1)


class Categorical(Actions):
    """A choice among some; the action is its number, [.., 1]."""

    kind = "categorical"

    def __init__(self, choices: int) -> None:
        super().__init__()
        self.acted, self.size, self.choices = 1, choices, choices

    def logp(self, features: Float[Tensor, "*n size"], actions: Float[Tensor, "*n acted"]) -> Float[Tensor, "*n"]:
        return wide(features).log_softmax(-1).gather(-1, self._chosen(actions))[..., 0]

    def _chosen(self, actions: Tensor) -> Tensor:
        chosen = actions.long()
        wrong = (chosen != actions) | (chosen < 0) | (chosen >= self.choices)
        if bool(wrong.any()):
            raise Refusal(
                f"an action is {float(actions[wrong][0]):g}; it must be the number of one of {self.choices} choices, from 0."
            )
        return chosen

    def entropy(self, features: Float[Tensor, "*n size"]) -> Float[Tensor, "*n"]:
        logp = wide(features).log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    def noise(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.choices, generator=generator, dtype=torch.float64)

    def draw(self, features: Float[Tensor, "n size"], noise: Tensor, temperature: float = 1.0) -> Float[Tensor, "n acted"]:
        return _picked(features, noise, temperature)[..., None].to(wide(features))

    def told(self) -> dict[str, Any]:
        return {"kind": self.kind, "choices": self.choices}


class Binned(Actions):
    """Every number of an action is a choice among bins of equal width between `low` and `high`, independently of the others: the
    action tokens of RT-1 and OpenVLA, given the observation alone. An action is the middle of its bin; a recorded one is read as
    the bin it lies in, one outside as the nearest. OpenVLA's tokenizer counts 256 edges in [−1, 1], between which lie 255 bins: to
    compute with its tokens say bins=255. `Tokens` has bins that hang on each other."""

    kind = "binned"

    def __init__(self, acted: int, bins: int = 256, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        if bins < 2 or not low < high:
            raise Refusal(
                f"bins={bins}, low={low}, high={high}: at least 2 bins between a low and a higher bound are needed."
            )
        self.acted, self.size, self.bins, self.low, self.high = acted, acted * bins, bins, low, high

    def number(self, actions: Float[Tensor, "*n acted"]) -> Tensor:
        """The bin of every number, int64."""
        place = (actions.double() - self.low) / (self.high - self.low) * self.bins
        return place.floor().long().clamp(0, self.bins - 1)

    def middle(self, number: Tensor) -> Tensor:
        """The number that a bin stands for."""
        return self.low + (number + 0.5) * (self.high - self.low) / self.bins

    def _logits(self, features: Tensor) -> Tensor:
        return wide(features).unflatten(-1, (self.acted, self.bins))

    def logp(self, features: Float[Tensor, "*n size"], actions: Float[Tensor, "*n acted"]) -> Float[Tensor, "*n"]:
        told = self._logits(features).log_softmax(-1)
        return told.gather(-1, self.number(actions)[..., None])[..., 0].sum(-1)

    def entropy(self, features: Float[Tensor, "*n size"]) -> Float[Tensor, "*n"]:
        logp = self._logits(features).log_softmax(-1)
        return -(logp.exp() * logp).sum((-1, -2))

    def noise(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.acted, self.bins, generator=generator, dtype=torch.float64)

    def draw(self, features: Float[Tensor, "n size"], noise: Tensor, temperature: float = 1.0) -> Float[Tensor, "n acted"]:
        return self.middle(_picked(self._logits(features), noise, temperature)).to(wide(features))

    def told(self) -> dict[str, Any]:
        return {"kind": self.kind, "acted": self.acted, "bins": self.bins, "low": self.low, "high": self.high}


class Tokens(Binned):
    """Binned actions whose numbers are told one after the other, each given those before, as a vision-language-action model
    does. The network gives what it has seen as features; `speaker` makes of them, [n, size], and of the bins so far, int64 [n,
    acted], logits [n, acted, bins], of which place d may read the bins before d alone. log π of an action is the sum over its
    tokens."""

    kind = "tokens"

    def __init__(
        self, speaker: nn.Module, size: int, acted: int, bins: int = 256, low: float = -1.0, high: float = 1.0
    ) -> None:
        super().__init__(acted, bins, low, high)
        self.speaker, self.size = speaker, size

    def _spoken(self, features: Tensor, number: Tensor) -> Tensor:
        flat = self.speaker(features.reshape(-1, self.size), number.reshape(-1, self.acted))
        return wide(flat).view(*number.shape, self.bins).log_softmax(-1)

    def logp(self, features: Float[Tensor, "*n size"], actions: Float[Tensor, "*n acted"]) -> Float[Tensor, "*n"]:
        number = self.number(actions)
        return self._spoken(features, number).gather(-1, number[..., None])[..., 0].sum(-1)

    def entropy(self, features: Float[Tensor, "*n size"]) -> Float[Tensor, "*n"]:
        raise Refusal(
            "the entropy of actions whose numbers hang on each other is a sum over all of them; leave the value out."
        )

    def draw(self, features: Float[Tensor, "n size"], noise: Tensor, temperature: float = 1.0) -> Float[Tensor, "n acted"]:
        number = torch.zeros(len(features), self.acted, dtype=torch.long, device=features.device)
        for d in range(self.acted):
            number[:, d] = _picked(self._spoken(features, number)[:, d], noise[:, d], temperature)
        return self.middle(number).to(wide(features))

    def told(self) -> dict[str, Any]:
        raise Refusal("a policy with a speaker of your own is saved by your own code: its network is not known by name.")


def actions_of(told: Mapping[str, Any]) -> Actions:
    """What `Actions.told` described."""
    makers: dict[Any, type[Actions]] = {kind.kind: kind for kind in (Gaussian, WideGaussian, Squashed, Categorical, Binned)}
    kind = told.get("kind")
    if kind not in makers:
        raise Refusal(f"actions of the kind {kind!r}; known are {', '.join(makers)}.")
    return makers[kind](**{name: value for name, value in told.items() if name != "kind"})


Kind = Literal["gaussian", "wide-gaussian", "squashed", "categorical", "binned"]


def _normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, std²) of every number."""
    return -0.5 * ((x - mean) * (-log_std).exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def _log_slope(u: Tensor) -> Tensor:
    """log(1 − tanh²u), without cancelling far from 0."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def _picked(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """The number drawn by Gumbel's trick from uniform noise of the same shape; the most probable at temperature 0."""
    told = logits.double()
    if temperature > 0:
        tiny = torch.finfo(torch.float64).tiny
        told = told / temperature - (-noise.to(told).clamp_min(tiny).log()).clamp_min(tiny).log()
    return told.argmax(-1)

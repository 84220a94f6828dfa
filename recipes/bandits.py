"""Bandits on which on-policy sampling, the reuse of samples and the push on worse samples can be told apart: bumps of reward,
the law that the data come from, policies, losses and the outer loop. Steps are the engine's own; what is claimed of them stands
in the recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from finite import ALL_TOKENS, PLAIN, PLAINLY, Finite, Policy
from torch import Tensor, nn

from penchant.domains.base import Encoded, Want
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.objectives import Lists, Objective, Pairs, Scored
from penchant.objectives.base import NO_NEEDS, PREVIOUS, REFERENCE, Needs, NonNegative, Positive, State, zeros

ACTIONS, DIMENSIONS, TOKENS = 100, 10, 10
EDGE = 0.99
"""Continuous actions are cut to [−0.99, 0.99], as in the authors' code: beyond it atanh is mostly rounding."""

# Rewards and the law of the data --------------------------------------------------------------------


@dataclass(frozen=True)
class Bump:
    """exp(−(d/width)²). d is the Euclidean distance of the whole action from the peak, so that with ten dimensions the bump is
    far sharper in each than with one; where `each`, the mean over tokens of the bump at each token."""

    peak: float
    width: float
    each: bool = False

    def __call__(self, actions: Tensor) -> Tensor:
        """actions [n, steps], rewards [n] in float64."""
        squares = ((actions.double() - self.peak) / self.width) ** 2
        return (-squares).exp().mean(-1) if self.each else (-squares.sum(-1)).exp()


REWARDS = {
    "R1": Bump(0.7, 0.75),
    "R2": Bump(0.7, 0.25),
    "R3": Bump(-0.7, 0.25),
    "R4": Bump(70.0, 10.0),
    "R5": Bump(20.0, 10.0),
    "R6": Bump(70.0, 10.0, each=True),
    "R7": Bump(20.0, 10.0, each=True),
    "R8": Bump(70.0, 20.0),
    "R9": Bump(70.0, 30.0),
}
"""Of Tajwar et al. 2024, as their code has them. R1 to R3: actions in [−1, 1]¹⁰; R4, R5, R8 and R9: 100 actions; R6 and R7: ten
tokens out of 100. R3, R5 and R7 are high where the data are, the others far from it."""


class Law(Protocol):
    """Something that actions are drawn from and that says how probable they are."""

    def sample(self, count: int, make: torch.Generator) -> Tensor:
        """Actions [count, steps]."""
        ...

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """log π of each step, [n, steps]."""
        ...


class TanhCauchy:
    """π_data: tanh(c), c ~ Cauchy(loc, scale), each dimension by itself."""

    def __init__(self, dimensions: int = DIMENSIONS, loc: float = -0.7, scale: float = 0.4) -> None:
        self.dimensions, self.loc, self.scale = dimensions, loc, scale

    def sample(self, count: int, make: torch.Generator) -> Tensor:
        u = torch.rand(count, self.dimensions, generator=make, dtype=torch.float64)
        return (self.loc + self.scale * (math.pi * (u - 0.5)).tan()).tanh().clamp(-EDGE, EDGE)

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """log density of each dimension: that of the Cauchy law at atanh(a), less log(1 − a²)."""
        z = (actions.atanh() - self.loc) / self.scale
        return -(math.pi * self.scale * (1 + z**2)).log() - (1 - actions**2).log()

    def masses(self, bins: int = ACTIONS) -> Tensor:
        """What falls into each of so many equal bins of [−1, 1], exactly, [bins]; the authors count 10,000 draws. The tails
        pile up in the first and the last bin."""
        edges = torch.linspace(-1, 1, bins + 1, dtype=torch.float64)
        below = ((edges[1:-1].atanh() - self.loc) / self.scale).atan() / math.pi + 0.5
        return torch.cat([below.new_zeros(1), below, below.new_ones(1)]).diff()


# Policies -------------------------------------------------------------------------------------------


class Table(Policy):
    """A free logit for each of the actions; nothing learned of one says anything of another."""

    def __init__(self, masses: Tensor) -> None:
        super().__init__(masses.log()[None])

    def forward(self, prompts: Tensor, responses: Tensor) -> Tensor:
        return super().forward(prompts, responses[:, 0])[:, None]

    def sample(self, count: int, make: torch.Generator) -> Tensor:
        return torch.multinomial(self.probabilities()[0], count, replacement=True, generator=make)[:, None]


class TanhGaussian(nn.Module):
    """tanh(c), c ~ Normal(loc, scale), each dimension by itself: what is learned of an action moves all of them."""

    def __init__(self, draws: Tensor) -> None:
        """draws: actions [n, d] that it starts from as their likeliest law, which has a closed form."""
        super().__init__()
        c = draws.atanh()
        self.loc = nn.Parameter(c.mean(0))
        self.log_scale = nn.Parameter(c.std(0, correction=0).log())

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        z = (actions.atanh() - self.loc) * (-self.log_scale).exp()
        return -0.5 * z**2 - self.log_scale - 0.5 * math.log(2 * math.pi) - (1 - actions**2).log()

    @torch.no_grad()
    def sample(self, count: int, make: torch.Generator) -> Tensor:
        noise = torch.randn(count, len(self.loc), generator=make, dtype=self.loc.dtype)
        return (self.loc + self.log_scale.exp() * noise).tanh().clamp(-EDGE, EDGE)


class Tokens(nn.Module):
    """A causal transformer of one layer over ten tokens, which starts as the law of the data."""

    def __init__(self, masses: Tensor, seed: int, width: int = 32, tokens: int = TOKENS) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(len(masses) + 1, width, dtype=masses.dtype)  # the last stands before the first token
            self.place = nn.Embedding(tokens, width, dtype=masses.dtype)
            self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, dtype=masses.dtype)
            self.head = nn.Linear(width, len(masses), dtype=masses.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.start, self.tokens = nn.Buffer(masses.log()), tokens

    def logp(self, before: Tensor) -> Tensor:
        """log π of every next token, [n, steps, vocabulary], from the tokens before [n, steps], of which the first is the
        beginning."""
        steps = before.shape[1]
        hidden = self.embed(before) + self.place.weight[:steps]
        ahead = torch.ones(steps, steps, dtype=torch.bool).triu(1)
        return (self.start + self.head(self.layer(hidden, src_mask=ahead))).log_softmax(-1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        before = torch.cat([torch.full_like(actions[:, :1], len(self.start)), actions[:, :-1]], 1)
        return self.logp(before).gather(-1, actions[..., None])[..., 0]

    @torch.no_grad()
    def sample(self, count: int, make: torch.Generator) -> Tensor:
        said = torch.full((count, 1), len(self.start))
        for _ in range(self.tokens):
            drawn = torch.multinomial(self.logp(said)[:, -1].exp(), 1, generator=make)
            said = torch.cat([said, drawn], 1)
        return said[:, 1:]


class Actions(Finite):
    """The domain of numbered states and actions of several steps, each a number."""

    name, noisy = "actions", False

    def score(self, policy: Any, encoded: Encoded, want: Want = PLAIN) -> Scored:
        if want.values:
            raise Refusal(f"a bandit's policy has no values; {sorted(want.values)} were wanted.")
        states, actions = zip(*encoded.flat, strict=True)
        logp = policy(torch.cat(states), torch.stack(actions))
        return Scored(logp, torch.ones_like(logp, dtype=torch.bool))


# Losses that are no preference objectives ------------------------------------------------------------


@dataclass(frozen=True)
class BestOfN(Objective):
    """−log π(best) + β · (log π of the others)        Tajwar et al. 2024, arXiv 2404.14367, and its negative gradients"""

    beta: NonNegative = 0.0
    """How hard worse samples are pushed down; 0 is plain Best-of-N."""
    pushed: Literal["worst", "mean", "sum"] = "worst"
    """Which of the others: the worst, the mean over all or their sum."""
    counted: Literal["free", "constrained"] = "free"
    """constrained: log π/π_ref in the place of log π. The reference has no gradient, so the loss differs and training does
    not; the authors' constrained mean is the sum besides."""

    data = Lists
    unit = "list"

    @property
    def needs(self) -> Needs:  # pyright: ignore[reportIncompatibleVariableOverride]
        return REFERENCE if self.counted == "constrained" else NO_NEEDS

    def __call__(self, batch: Lists, state: State | None = None) -> Tensor:
        logp, mask = batch.dense(batch.y.ratio if self.counted == "constrained" else batch.y.total)
        gain = batch.dense(batch.gain)[0]
        best = gain.masked_fill(~mask, -math.inf).argmax(-1, keepdim=True)  # of equals the first, as numpy's
        worst = gain.masked_fill(~mask, math.inf).argmin(-1, keepdim=True)
        others = logp.scatter(-1, best, 0.0).sum(-1)
        down = {
            "worst": logp.gather(-1, worst)[:, 0],
            "mean": others / (mask.sum(-1) - 1).clamp(min=1),
            "sum": others,
        }
        return self.beta * down[self.pushed] - logp.gather(-1, best)[:, 0]


@dataclass(frozen=True)
class RWR(Objective):
    """−exp(r/β) log π        reward-weighted regression (Peters and Schaal 2007); AWR without a value baseline"""

    beta: Positive = 1.0
    """Temperature: without end it is imitation of all samples, near 0 of the best alone."""

    data = Lists
    unit = "response"

    def __call__(self, batch: Lists, state: State | None = None) -> Tensor:
        return -(batch.gain.to(batch.y.total.dtype) / self.beta).exp() * batch.y.total


def left_out(batch: Lists) -> Tensor:
    """Each response's reward less the mean of the others' of its list, flat; 0 where it is alone."""
    _, row, count = torch.unique(batch.group, return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), dtype=batch.gain.dtype).index_add(0, row, batch.gain)
    others = (total[row] - batch.gain) / (count[row] - 1).clamp(min=1)
    return torch.where(count[row] > 1, batch.gain - others, 0.0)


@dataclass(frozen=True)
class Reinforce(Objective):
    """−(r − mean of the others' r) log π        leave-one-out, on samples of whatever law"""

    data = Lists
    unit = "response"

    def __call__(self, batch: Lists, state: State | None = None) -> Tensor:
        return -left_out(batch).to(batch.y.total.dtype) * batch.y.total


@dataclass(frozen=True)
class PPOClip(Objective):
    """−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A),  ρ = π/π_prev of the whole action, A = r − mean of the others' r"""

    epsilon: Positive = 0.2
    """How far a sample moves the policy before its gradient ends."""

    data = Lists
    unit = "response"
    needs = PREVIOUS

    def __call__(self, batch: Lists, state: State | None = None) -> Tensor:
        ratio, gain = batch.y.against("prev").exp(), left_out(batch)
        return -torch.minimum(ratio * gain, ratio.clamp(1 - self.epsilon, 1 + self.epsilon) * gain)


# Rows -----------------------------------------------------------------------------------------------


def ordered(rewards: Tensor, threshold: float = 0.0) -> list[tuple[int, int]]:
    """All pairs (winner, loser) of one state's samples, [n] rewards: by reward, of equals the one drawn later; without pairs
    whose rewards are less than `threshold` apart."""
    said, order = rewards.sort(stable=True)
    return [
        (int(order[j]), int(order[i]))
        for i, j in combinations(range(len(said)), 2)
        if float(said[j] - said[i]) >= threshold
    ]


def samples_for(pairs: int) -> int:
    """How many samples of one state give so many pairs: the smallest n with n (n − 1)/2 ≥ pairs."""
    n = (1 + math.isqrt(1 + 8 * pairs)) // 2
    return n if n * (n - 1) // 2 >= pairs else n + 1


def rows(kind: type, actions: Tensor, rewards: Tensor, threshold: float = 0.0) -> Encoded:
    """Samples [states, n, steps] with rewards [states, n] as Pairs (all of each state) or as Lists."""
    context = tuple(torch.zeros(len(actions), 1, dtype=torch.long))
    if kind is Lists:
        gains = {"gain": rewards.flatten()}
        return Encoded(Lists, context, tuple(tuple(some) for some in actions), tuple(range(1, len(actions) + 1)), gains)
    picked = [(s, w, l) for s in range(len(actions)) for w, l in ordered(rewards[s], threshold)]
    both = tuple((actions[s, w], actions[s, l]) for s, w, l in picked)
    return Encoded(Pairs, tuple(context[s] for s, *_ in picked), both, tuple(s + 1 for s, *_ in picked))


# The loop -------------------------------------------------------------------------------------------


class Learner:
    """A policy, an objective and one optimiser over as many steps as are asked for: the engine's step, and nothing else."""

    def __init__(
        self,
        policy: nn.Module,
        objective: Objective,
        reference: Callable[..., Tensor],
        *,
        rate: float,
        domain: Finite | None = None,
        optimiser: type[torch.optim.Optimizer] = torch.optim.Adam,
    ) -> None:
        self.policy, self.objective, self.reference = policy, objective, reference
        self.domain = domain or Actions()
        self.previous: nn.Module = policy
        self.state: Mapping[str, Tensor] = zeros(objective, {})
        made: Any = optimiser
        self._step = Step(
            policy,
            self.domain,
            objective,
            made(policy.parameters(), lr=rate),
            Accelerator(cpu=True),
            PLAINLY,
            tokens=ALL_TOKENS,
            clip=math.inf,
        )

    def phase(self) -> None:
        """A phase begins: what `prev` is from now on."""
        if "prev" in self.objective.needs.anchors:
            self.previous = deepcopy(self.policy).requires_grad_(False)

    @torch.no_grad()
    def anchors(self, some: Encoded) -> dict[str, Tensor]:
        """The log-probs that the objective is held against, [n, steps], by name."""
        held = {"ref": self.reference, "prev": self.previous}
        return {name: self.domain.score(held[name], some).logp for name in self.objective.needs.anchors}  # pyright: ignore[reportArgumentType]

    def __call__(self, some: Encoded, steps: int = 1) -> float:
        """So many steps on all of the rows; the loss before the last."""
        held = {name: (lambda picked, x=x: x) for name, x in self.anchors(some).items()}
        loss = math.nan
        for _ in range(steps):
            outcome = self._step(Material(some, held), range(len(some)), self.state)
            self.state, loss = outcome.state, outcome.loss
        return loss


@dataclass(frozen=True)
class Way:
    """How an epoch's samples are drawn and used: the axes of the study."""

    on_policy: bool = True
    """From the policy of the epoch's start, but for the first epoch, or always from the data's law. Either way an epoch
    asks for as many rewards and takes as many steps."""
    inner: int = 1
    """Gradient steps on the same samples."""
    epochs: int = 100
    states: int = 8
    samples: int = 10
    """Samples, and reward queries, of each state in an epoch."""
    rate: float = 0.05
    threshold: float = 0.0

    @property
    def queries(self) -> int:
        return self.epochs * self.states * self.samples


def learn(
    policy: Any, objective: Objective, reward: Callable[[Tensor], Tensor], data: Law, way: Way, seed: int
) -> Iterable[int]:
    """Trains `policy` in place; gives the number of rewards asked for so far after every epoch."""
    make = torch.Generator().manual_seed(seed)
    kind = Pairs if objective.data is Pairs or (isinstance(objective.data, tuple) and Pairs in objective.data) else Lists
    learner = Learner(policy, objective, data, rate=way.rate)
    for epoch in range(way.epochs):
        law = policy if way.on_policy and epoch else data
        actions = law.sample(way.states * way.samples, make)
        rewards = reward(actions).view(way.states, way.samples)
        learner.phase()
        learner(rows(kind, actions.view(way.states, way.samples, -1), rewards, way.threshold), way.inner)
        yield (epoch + 1) * way.states * way.samples


@dataclass(frozen=True)
class Look:
    """A policy looked at."""

    reward: float
    """E reward."""
    kl: float
    """KL(π ‖ π_data) in nats an action."""
    entropy: float
    """Of the policy, in nats an action; of a density, that of the density."""
    error: float
    """Standard error of `kl`; 0 where it is exact."""


@torch.no_grad()
def look(policy: Any, reward: Callable[[Tensor], Tensor], data: Law, seed: int = 0, count: int = 2_000) -> Look:
    """Exactly for a table, else on so many of the policy's own samples: KL is the mean of log π − log π_data there, which is 0
    where the two are one, whatever was drawn."""
    if isinstance(policy, Table):
        every = torch.arange(policy.start.shape[1])[:, None]
        p, weight = policy(torch.zeros_like(every[:, 0]), every)[:, 0], policy.probabilities()[0]
        apart = p - data(torch.zeros_like(every[:, 0]), every)[:, 0]
        worth = float(weight @ reward(every).to(weight.dtype))
        return Look(worth, float(weight @ apart), -float(torch.where(weight > 0, weight * p, 0.0).sum()), 0.0)
    actions = policy.sample(count, torch.Generator().manual_seed(seed))
    states = torch.zeros(count, dtype=torch.long)
    p = policy(states, actions).sum(-1)
    apart = p - data(states, actions).sum(-1)
    return Look(float(reward(actions).mean()), float(apart.mean()), -float(p.mean()), float(apart.std()) / math.sqrt(count))

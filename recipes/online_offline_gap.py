"""Online against offline: one loss, one trainer, the same hyper-parameters; only who gives the pairs differs.

Claim     (1) Online IPO beats offline IPO at equal KL from the start and at its peak, and both fall where pushed on; (2) the
          online run's own pairs, shuffled, do not help the offline trainer, mild shuffling does no harm: it is not coverage;
          (3) nor do pairs of the final online policy: it is not quality; (4) offline policies tell good from bad well and still
          generate worse: accuracy does not predict the win rate; (5) imitation of the better of two shows the same gap.
Source    Tang et al. 2024, arXiv 2405.08448, sections 2 to 5.
Run       4 prompts × 100 responses on a line. Golden model: Bradley-Terry on a bump far from the data. 3,200 pairs of the start
          policy are labelled by it once; from those labels alone a smooth proxy learns. Online pairs are labelled by the proxy,
          policies are judged by the golden model against a policy that was trained online on golden labels. The policy is a
          table, or a small network that shares its weights over prompts and responses. IPO(tau=0.1), Adam, 300 steps of 32
          pairs; KL, win rate and entropy are exact. 3 seeds. Budget: 240 CPU-seconds.
Showed    (1) The gap is there: at the peak online wins 0.51 against 0.21 with a table, 0.55 [0.52, 0.58] against 0.36 [0.32,
          0.40] with the network, also where offline has the best of three τ (0.21 and 0.43). At an equal KL of 1 nat it is
          +0.08 [+0.05, +0.11] with the table and +0.03 [−0.04, +0.09], nothing sure, with the network: online's gain is that it
          gets further. A fall from the peak is not seen in 300 steps. (2) Not reproduced: replayed in order the weights are
          the same; fully shuffled it wins 0.46 with the table and 0.54 with the network, so coverage suffices here. (3)
          Pairs of the final policy give 0.25 and 0.41 [0.29, 0.53], not told apart from offline. (4) With the network accuracy
          and wins go against each other over the arms (correlation −0.56 [−0.70, −0.42]; offline tells 97 % right, online 70
          %), with the table together (0.49 [0.22, 0.76]). log π of the chosen falls most online, not offline. (5) Best-of-2:
          0.56 against 0.14 with the network, and its shuffled pairs give 0.53, as in the paper; the table's seeds differ too
          much. Where the table of figures says nan, an arm never got so far. 134 CPU-seconds.

    python recipes/online_offline_gap.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from bandits import Bump, Learner, TanhCauchy
from finite import Finite, Policy, pairs, train
from osp import at
from replay import order
from study import Study, over_seeds, study
from torch import Tensor, nn

from penchant.evaluation.statistics import Estimate
from penchant.objectives import DPO, IPO, NLL, Objective

PROMPTS, ACTIONS = 4, 100
STEPS, BATCH, DATA, LOOKS, FITS = 300, 32, 3_200, 15, 150
RATES = {"table": 0.05, "network": 0.003}
SHARP = 8.0
"""P(i ≻ j) = σ(8 (r_i − r_j)): the best response is preferred to a worthless one with 0.9997."""
SEEDS = tuple(range(3))
TOGETHER = 1.0
"""Nats from the start at which the arms are compared."""
Stream = list[tuple[Tensor, Tensor, Tensor]]
"""Steps of (prompt, chosen, rejected), each [pairs]."""
Label = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of (prompt, one, other): whether the one is preferred."""


class Network(nn.Module):
    """π(y | x) ∝ start(y | x) exp(f(x, y)), f a network that knows x and y by their places on a line and starts at 0."""

    def __init__(self, start: Tensor, seed: int, width: int = 48) -> None:
        super().__init__()
        x = torch.linspace(-1, 1, PROMPTS, dtype=start.dtype)[:, None].expand(-1, ACTIONS)
        y = torch.linspace(-1, 1, ACTIONS, dtype=start.dtype)[None].expand(PROMPTS, -1)
        seen = torch.stack([x, y, *(f(k * math.pi * y) for k in (1, 2) for f in (torch.sin, torch.cos))], -1)
        self.start, self.seen = nn.Buffer(start.clone()), nn.Buffer(seen)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = (nn.Linear(seen.shape[-1], width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
            self.f = nn.Sequential(*layers).to(start.dtype)
        last: Any = self.f[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def logp(self) -> Tensor:
        """log π(y | x), [prompts, responses]."""
        return (self.start + self.f(self.seen)[..., 0]).log_softmax(-1)

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """π(y | x), [prompts, responses]."""
        return self.logp().exp()

    def forward(self, prompts: Tensor, responses: Tensor) -> Tensor:
        return self.logp()[prompts, responses]


@dataclass(frozen=True)
class Preferences:
    """A preference model: P(i ≻ j) = σ(u_i − u_j) for each prompt. Golden model, proxy and judge are three of these or hold
    one; none of them is told another's utilities."""

    utility: Tensor
    """[prompts, responses]"""

    def table(self) -> Tensor:
        """P(i ≻ j), [prompts, i, j]."""
        return torch.sigmoid(self.utility[:, :, None] - self.utility[:, None, :])

    def prefers(self, prompt: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Which of two it says is better; of equals the first."""
        return self.utility[prompt, one] >= self.utility[prompt, other]

    def drawn(self, make: torch.Generator) -> Label:
        """Labels by chance, as its probabilities say."""

        def label(prompt: Tensor, one: Tensor, other: Tensor) -> Tensor:
            gap = self.utility[prompt, one] - self.utility[prompt, other]
            return torch.rand(len(prompt), generator=make, dtype=gap.dtype) < torch.sigmoid(gap)

        return label


@dataclass(frozen=True)
class Judge:
    """The golden model's word on a policy, against one fixed policy."""

    golden: Preferences
    opponent: Tensor
    """Probabilities, [prompts, responses]."""

    def wins(self, policy: Tensor, opponent: Tensor | None = None) -> float:
        """P(policy ≻ opponent), the mean over prompts, exactly."""
        against = self.opponent if opponent is None else opponent
        return float(torch.einsum("xi,xij,xj->x", policy, self.golden.table(), against).mean())


@dataclass(frozen=True)
class World:
    """What is the same for all arms of a seed."""

    start: Tensor
    """Logits of the start policy, [prompts, responses]."""
    reward: Tensor
    golden: Preferences
    proxy: Preferences
    judge: Judge
    data: Stream
    """Pairs of the start policy with the golden model's labels."""
    held: tuple[Tensor, Tensor, Tensor]
    """More of them, by whom policies are tried as classifiers; labelled by which is better."""


def drawn(law: Tensor, count: int, label: Label, make: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of responses to random prompts from a law [prompts, responses], labelled."""
    prompt = torch.randint(PROMPTS, (count,), generator=make)
    one, other = torch.multinomial(law[prompt], 2, replacement=True, generator=make).T
    wins = label(prompt, one, other)
    return prompt, torch.where(wins, one, other), torch.where(wins, other, one)


def cut(whole: tuple[Tensor, Tensor, Tensor]) -> Stream:
    """A stream of steps of BATCH pairs."""
    return list(zip(*(x.split(BATCH) for x in whole), strict=True))


def joined(stream: Stream) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of a stream, in order."""
    prompt, w, l = (torch.cat(parts) for parts in zip(*stream, strict=True))
    return prompt, w, l


def shuffled(stream: Stream, share: float, seed: int) -> Stream:
    """The stream with its pairs mixed within consecutive blocks of `share` of it."""
    whole = joined(stream)
    places = torch.tensor(order(len(whole[0]), share, seed))
    prompt, w, l = (x[places] for x in whole)
    return cut((prompt, w, l))


def passes(stream: Stream, seed: int) -> Stream:
    """A set of pairs as so many steps as a run has, in a new order in every pass."""
    rounds = -(-STEPS // len(stream))
    return [step for k in range(rounds) for step in shuffled(stream, 1.0, 1_000 * seed + k)][:STEPS]


def fitted(data: Stream, seed: int) -> Preferences:
    """The proxy: Bradley-Terry on smooth features, which is DPO with β = 1 from a uniform start."""
    centres = torch.linspace(0, ACTIONS - 1, 8, dtype=torch.float64)
    near = (-(((torch.arange(ACTIONS)[:, None] - centres) / 15) ** 2)).exp()
    features = torch.einsum("xp,yk->xypk", torch.eye(PROMPTS, dtype=torch.float64), near).flatten(2)
    model = Policy(torch.zeros(PROMPTS, ACTIONS, dtype=torch.float64), features)
    train(model, DPO(beta=1), pairs(*joined(data)), steps=FITS, batch=320, rate=0.1, seed=seed)
    return Preferences(model.logp().detach())


@cache
def world(seed: int) -> World:
    make = torch.Generator().manual_seed(seed)
    centres = 60 + 20 * torch.rand(PROMPTS, generator=make, dtype=torch.float64)
    places = torch.arange(ACTIONS, dtype=torch.float64)
    reward = torch.stack([Bump(float(c), 30.0)(places[:, None]) for c in centres])
    start = TanhCauchy().masses(ACTIONS).log().expand(PROMPTS, -1).clone()
    golden = Preferences(SHARP * reward)
    data = cut(drawn(start.exp(), DATA, golden.drawn(make), make))
    opponent = Policy(start)
    for _ in online(opponent, IPO(tau=0.1, average=False), golden.prefers, seed + 500, RATES["table"]):
        pass
    held = drawn(start.exp(), 2_000, golden.prefers, make)
    judge = Judge(golden, opponent.probabilities())
    return World(start, reward, golden, fitted(data, seed), judge, data, held)


# The trainer, and the sampler before it --------------------------------------------------------------


def offline(policy: Any, objective: Objective, stream: Stream, rate: float) -> Any:
    """A step on each part of a stream; gives each part after its step."""
    learner = Learner(policy, objective, deepcopy(policy).requires_grad_(False), rate=rate, domain=Finite())
    for step in stream:
        learner(pairs(*step))
        yield step


def online(policy: Any, objective: Objective, label: Label, seed: int, rate: float) -> Any:
    """The same trainer on a stream that the policy gives as it learns."""
    make = torch.Generator().manual_seed(seed)
    own = (drawn(policy.probabilities(), BATCH, label, make) for _ in range(STEPS))
    yield from offline(policy, objective, own, rate)  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def looked(policy: Any, w: World) -> dict[str, float]:
    """What a policy is: generation, discrimination, coverage."""
    p, logp, start = policy.probabilities(), policy.logp(), w.start.log_softmax(-1)
    apart = logp - start
    prompt, better, worse = w.held
    told = apart[prompt, better] - apart[prompt, worse]
    real = w.reward[prompt, better] != w.reward[prompt, worse]
    _, chosen, _ = whole = joined(w.data)
    return {
        "KL": float((p * apart).sum(-1).mean()),
        "wins": w.judge.wins(p),
        "accuracy": float((told[real] > 0).double().mean()),
        "log π of chosen": float(apart[whole[0], chosen].mean()),
        "entropy": -float((p * logp).sum(-1).mean()),
        "on the peak": float((p * (w.reward > 0.9)).sum(-1).mean()),
    }


@dataclass(frozen=True)
class Walk:
    """A run: looks along the way, the policy it ended with and the pairs it learned from."""

    looks: list[dict[str, float]]
    policy: Any
    stream: Stream

    def figures(self) -> dict[str, float]:
        path = [(look["KL"], look["wins"]) for look in self.looks]
        last = self.looks[-1]
        return {
            f"wins at KL {TOGETHER:g}": at(path, TOGETHER),
            "wins, peak": max(wins for _, wins in path),
            "wins, end": last["wins"],
            **{name: last[name] for name in ("KL", "accuracy", "log π of chosen", "entropy", "on the peak")},
        }


def walked(policy: Any, w: World, steps: Any) -> Walk:
    looks, stream = [looked(policy, w)], []
    for step in steps:
        stream.append(step)
        if len(stream) % LOOKS == 0:
            looks.append(looked(policy, w))
    return Walk(looks, policy, stream)


def fresh(kind: str, w: World, seed: int) -> Any:
    return Policy(w.start) if kind == "table" else Network(w.start, seed)


@cache
def itself(kind: str, written: str, seed: int) -> Walk:
    """The online run of a seed, whose pairs other arms learn from."""
    w, objective = world(seed), OBJECTIVES[written]
    policy = fresh(kind, w, seed)
    return walked(policy, w, online(policy, objective, w.proxy.prefers, seed, RATES[kind]))


OBJECTIVES: dict[str, Objective] = {
    "IPO": IPO(tau=0.1, average=False),
    "IPO, tau=0.02": IPO(tau=0.02, average=False),
    "IPO, tau=0.5": IPO(tau=0.5, average=False),
    "Best-of-2": NLL(reduction="sum"),
}


def arms(kind: str, shares: Sequence[float] = (0.0, 0.02, 0.2, 1.0)) -> dict[str, Callable[[int], Mapping[str, float]]]:
    """Every arm of one kind of policy; the first is the baseline."""

    def on(written: str, stream: Callable[[int], Stream]) -> Callable[[int], Mapping[str, float]]:
        def run(seed: int) -> Mapping[str, float]:
            w = world(seed)
            policy = fresh(kind, w, seed)
            return walked(policy, w, offline(policy, OBJECTIVES[written], stream(seed), RATES[kind])).figures()

        return run

    def final(seed: int) -> Stream:
        w, make = world(seed), torch.Generator().manual_seed(seed + 900)
        law = itself(kind, "IPO", seed).policy.probabilities()
        return passes(cut(drawn(law, DATA, w.golden.drawn(make), make)), seed)

    fixed = lambda seed: passes(world(seed).data, seed)  # noqa: E731
    own = lambda written, share: lambda seed: shuffled(itself(kind, written, seed).stream, share, seed)  # noqa: E731
    alone = lambda written: lambda seed: itself(kind, written, seed).figures()  # noqa: E731
    return {
        "offline": on("IPO", fixed),
        "online": alone("IPO"),
        **{f"replayed, shuffled {share:g}": on("IPO", own("IPO", share)) for share in shares},
        "pairs of the final policy": on("IPO", final),
        **{f"offline, τ = {tau}": on(f"IPO, tau={tau}", fixed) for tau in ("0.02", "0.5")},
        **{f"online, τ = {tau}": alone(f"IPO, tau={tau}") for tau in ("0.02", "0.5")},
        "Best-of-2, offline": on("Best-of-2", fixed),
        "Best-of-2, online": alone("Best-of-2"),
        "Best-of-2, replayed, shuffled 1": on("Best-of-2", own("Best-of-2", 1.0)),
    }


def gap(kind: str, seeds: Sequence[int] = SEEDS, some: Sequence[str] | None = None) -> Study:
    """The arms, or some of them."""
    every = arms(kind)
    return study({name: every[name] for name in some or every}, seeds)


def predicted(found: Study) -> Estimate:
    """Correlation over the arms of a seed of a policy's accuracy as a classifier and its win rate, over seeds."""

    def correlation(k: int) -> float:
        both = [[found.values(arm, figure)[k] for arm in found.runs] for figure in ("accuracy", "wins, end")]
        return float(torch.corrcoef(torch.tensor(both, dtype=torch.float64))[0, 1])

    return over_seeds([correlation(k) for k in range(len(found.seeds))])


def main() -> None:
    proxy = [float(w.proxy.prefers(*w.held).double().mean()) for w in map(world, SEEDS)]
    print(f"The proxy tells the better of two responses of the start policy in {over_seeds(proxy)} of pairs.")
    for kind in RATES:
        found = gap(kind)
        print(f"\n{kind}", found, f"correlation of accuracy and wins over arms: {predicted(found)}", sep="\n")


if __name__ == "__main__":
    main()

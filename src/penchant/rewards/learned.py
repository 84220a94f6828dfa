"""Rewards learnt from preferences between segments: how a model of steps is fitted, kept in a folder, and used as a judge of
behaviour. Who is asked, and what is done with the reward, is not known here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.files import read_json, write_json
from penchant.objectives.base import Paired
from penchant.objectives.bradley_terry import BradleyTerry
from penchant.objectives.scored import Pairs, Scored
from penchant.rewards.base import Context, Judgement
from penchant.rewards.combine import Weighable
from penchant.rewards.preference_transformer import PreferenceTransformer
from penchant.rewards.steps import Steps, steps_of
from penchant.rewards.stepwise import Ensemble, StepRewards
from penchant.words import brief

Optimised = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SAID, WEIGHTS = "step_rewards.json", "step_rewards.safetensors"
KINDS: dict[str, type[StepRewards]] = {kind.kind: kind for kind in (Ensemble, PreferenceTransformer)}


def whole(scores: Float[Tensor, "n"]) -> Scored:
    """Segments that are scored whole, in one step."""
    return Scored(scores[:, None], torch.ones(len(scores), 1, dtype=torch.bool, device=scores.device))


def loss_of(
    objective: Paired, first: Float[Tensor, "n"], second: Float[Tensor, "n"], preferred: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """The loss of each pair, from its scores and P(the first is preferred)."""
    ahead = preferred >= 0.5
    if "strength" not in objective.needs.columns and bool(((preferred > 0) & (preferred < 1)).any()):
        raise Refusal(
            f"{objective!r} reads no strengths, but there are ties or unsure answers: use BradleyTerry(strength=True)."
        )
    chosen, rejected = torch.where(ahead, first, second), torch.where(ahead, second, first)
    return objective(Pairs(whole(chosen), whole(rejected), strength=torch.where(ahead, preferred, 1 - preferred)))


def adam(rate: float = 3e-4) -> Optimised:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def warmed(warm: int, total: int, low: float = 0.1) -> Callable[[int], float]:
    """The share of the peak rate at each update: up in a line from `low` in `warm` updates, then down by a cosine to `low` at
    `total` (Preference Transformer: 10⁻⁴ to 10⁻³ and back, AdamW)."""

    def share(update: int) -> float:
        if update < warm:
            return low + (1 - low) * update / warm
        done = min((update - warm) / max(total - warm, 1), 1.0)
        return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2

    return share


class Fitting:
    """A reward model while it learns. B-Pref's way (arXiv 2111.03026, reward_model.py): every member has its own order of the
    pairs, the losses of the members are added up, and it ends as soon as an epoch's accuracy, taken while it learns, is enough.
    Accuracy is over pairs that were decided; the code counts ties as wrong. The optimiser is kept from one call to the next."""

    def __init__(
        self,
        model: StepRewards,
        objective: Paired = BradleyTerry(strength=True),  # noqa: B008
        *,
        optimiser: Optimised = adam(),  # noqa: B008
        batch: int = 128,
        share: Callable[[int], float] | None = None,
        seed: int = 0,
    ) -> None:
        """share: what the rate is multiplied with at each update."""
        self.model, self.objective, self.batch = model, objective, batch
        self.optimiser = optimiser(model.parameters())
        self._schedule = None if share is None else torch.optim.lr_scheduler.LambdaLR(self.optimiser, share)
        self._order = torch.Generator().manual_seed(seed)

    def fit(
        self, first: Steps, second: Steps, preferred: Float[Tensor, "n"], epochs: int = 50, enough: float = 0.97
    ) -> list[float]:
        """Learns for at most so many epochs. The accuracy of each, the mean over members; NaN where all were ties. preferred:
        P(the first is preferred), in [0, 1]; take skipped pairs out before."""
        if not len(first) == len(second) == len(preferred) or not len(first):
            raise Refusal(f"{len(first)} first and {len(second)} second segments, {len(preferred)} answers: one of each.")
        if not bool(((preferred >= 0) & (preferred <= 1)).all()):
            raise Refusal("preferred: not all are probabilities; take out the pairs that were skipped.")
        like = next(self.model.parameters())
        first, second, preferred = first.to(like), second.to(like), preferred.to(like)
        self.model.train()
        found = []
        for _ in range(epochs):
            found.append(self._epoch(first, second, preferred))
            if found[-1] > enough:
                break
        self.model.eval()
        return found

    def _epoch(self, first: Steps, second: Steps, preferred: Float[Tensor, "n"]) -> float:
        members, n = self.model.members, len(preferred)
        orders = [torch.randperm(n, generator=self._order) for _ in range(members)]
        right = decided = 0
        for start in range(0, n, self.batch):
            losses = []
            for k, order in enumerate(orders):
                some = order[start : start + self.batch].to(preferred.device)
                a, b, p = self._member(k, first[some]), self._member(k, second[some]), preferred[some]
                losses.append(loss_of(self.objective, a, b, p).mean())
                sure = p != 0.5
                right += int((((a >= b) == (p > 0.5)) & sure).sum())
                decided += int(sure.sum())
            self.optimiser.zero_grad()
            torch.stack(losses).sum().backward()
            self.optimiser.step()
            if self._schedule is not None:
                self._schedule.step()
        return right / decided if decided else math.nan

    def _member(self, k: int, steps: Steps) -> Float[Tensor, "n"]:
        return self.model.member(k, steps) if isinstance(self.model, Ensemble) else self.model.scores(steps)[k]


@torch.no_grad()
def wins(model: StepRewards, first: Steps, second: Steps, at_once: int = 512) -> Float[Tensor, "members n"]:
    """P(the first is preferred) by each member, float64: what queries are chosen by."""
    like = next(model.parameters())
    parts = [
        model.scores(first[s : s + at_once].to(like)) - model.scores(second[s : s + at_once].to(like))
        for s in range(0, len(first), at_once)
    ]
    return torch.sigmoid(torch.cat(parts, 1).double()).cpu()


@torch.no_grad()
def earned(model: StepRewards, steps: Steps, at_once: int = 512) -> Float[Tensor, "n steps"]:
    """The reward of every step, the mean over members, 0 where no step is: what reinforcement learning is given."""
    like = next(model.parameters())
    parts = [model.rewards(steps[s : s + at_once].to(like)).mean(0) for s in range(0, len(steps), at_once)]
    return torch.where(steps.mask, torch.cat(parts).cpu(), 0.0)


class LearnedReward(Weighable):
    """A fitted model as a judge of trajectories: a whole one's score, the mean over members. Scores of trajectories of unequal
    length are comparable only as far as the model's pooling makes them."""

    def __init__(self, model: StepRewards, name: str = "learned reward") -> None:
        self.model, self.name = model.eval(), name

    def __call__(self, contexts: Sequence[Context], responses: Sequence[Trajectory]) -> Judgement:
        if not responses:
            return Judgement(torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool), (self.name,))
        with torch.no_grad():
            like = next(self.model.parameters())
            said = self.model.scores(steps_of(responses).to(like)).mean(0).float().cpu()[:, None]
        return Judgement(said, torch.isfinite(said[:, 0]), (self.name,))


def save(model: StepRewards, folder: Path) -> None:
    """The model as `load` reads it. Not atomic by itself: give it a draft folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SAID, {"kind": model.kind, **model.told()})
    save_file({name: x.detach().cpu().contiguous() for name, x in model.state_dict().items()}, folder / WEIGHTS)


def load(folder: Path) -> StepRewards:
    """What `save` left. Raises Refusal for anything else."""
    if not (folder / SAID).is_file():
        raise Refusal(f"{brief(str(folder))} holds no {SAID}, so there is no reward model of steps in it.")
    told: Any = read_json(folder / SAID)
    try:
        make: Any = KINDS[told.pop("kind")]
        model = make(**told)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise Refusal(
            f"{folder}: the reward model in it cannot be read: {brief(str(error), 200)}. Save it anew."
        ) from error
    return model.eval()

"""PEBBLE: an agent that first looks for what is new, then learns what is wanted by asking about pairs of what it did. Who answers
is given; the learner and the reward model are other files'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from penchant.control.living import Living, acting, wandering
from penchant.control.sac import SAC
from penchant.control.transitions import Memory
from penchant.errors import Refusal
from penchant.feedback.queries import Selection, chosen, segments
from penchant.feedback.teachers import Answers, usual
from penchant.feedback.trajectories import Trajectory
from penchant.rewards.learned import Fitting, wins
from penchant.rewards.steps import Steps, steps_of
from penchant.rewards.stepwise import Ensemble


class Answering(Protocol):
    """Who compares segments: a scripted teacher, or anybody."""

    def answer(
        self, first: Sequence[Trajectory], second: Sequence[Trajectory], *, usual: float | None = None, seed: int = 0
    ) -> Answers: ...


@dataclass(frozen=True)
class PebbleSettings:
    """The schedule; defaults are the authors' (rll-research/BPref, config/train_PEBBLE.yaml and its scripts), but `batch`."""

    first: int = 1000
    """Steps of any action."""
    unsupervised: int = 9000
    """Steps that look for what is new."""
    interact: int = 5000
    """Steps from one session of questions to the next."""
    queries: int = 50
    """Pairs asked in a session."""
    budget: int = 1400
    """Pairs asked in all; what is skipped counts."""
    segment: int = 50
    selection: Selection = "disagreement"
    """Of all sessions but the first, which is uniform."""
    candidates: int = 10
    """Pairs drawn for each that is asked."""
    recent: int = 100
    """Episodes that segments are taken from, the newest."""
    neighbours: int = 5
    """k of the state's novelty."""
    after_reset: int = 100
    """Updates of the learner after its critics were made anew."""
    epochs: int = 200
    """Of the reward model in a session, at most; it stops where accuracy is above 0.97."""
    batch: int = 256
    """Steps of an update; 1024 in the authors' files."""

    def __post_init__(self) -> None:
        for name in ("first", "interact", "queries", "segment", "candidates", "recent", "neighbours", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise Refusal(f"{name}={getattr(self, name)}: it must be at least 1.")


@dataclass(frozen=True)
class Session:
    """What came of one session of questions."""

    step: int
    asked: int
    answered: int
    accuracy: float
    """Of the reward model in its last epoch."""


def novelty(
    some: Float[Tensor, "n observed"], every: Float[Tensor, "m observed"], k: int, at_once: int = 4096
) -> Float[Tensor, "n"]:
    """The distance from each of `some` to its k-th nearest among `every`, where it is itself and does not count. The entropy of
    states grows with its logarithm (PEBBLE, eq. 4); the authors' code takes the distance itself, and so it is here."""
    near = torch.full((len(some), 0), torch.inf)
    for i in range(0, len(every), at_once):
        near = torch.cat([near, torch.cdist(some, every[i : i + at_once])], 1)
        near = near.topk(min(k + 1, near.shape[1]), dim=1, largest=False).values
    return near[:, -1]


class Spread:
    """The standard deviation of everything seen so far, batch by batch; 1 before anything was."""

    def __init__(self) -> None:
        self.count, self.mean, self.variance = 1e-4, 0.0, 1.0

    def add(self, x: Float[Tensor, "n"]) -> None:
        n, mean, variance = len(x), float(x.mean()), float(x.var(correction=0))
        total, gap = self.count + n, mean - self.mean
        square = self.variance * self.count + variance * n + gap**2 * self.count * n / total
        self.mean, self.variance, self.count = self.mean + gap * n / total, square / total, total

    @property
    def deviation(self) -> float:
        return max(self.variance, 1e-12) ** 0.5


class Pebble:
    """Lee et al. 2021, arXiv 2106.05091: unsupervised pre-training by the novelty of states, questions, a reward model, and all
    that is remembered told anew by it."""

    def __init__(
        self, living: Living, learner: SAC, fitting: Fitting, teacher: Answering, memory: Memory,
        settings: PebbleSettings = PebbleSettings(), seed: int = 0,
    ) -> None:  # fmt: skip
        if not isinstance(fitting.model, Ensemble):
            raise Refusal("PEBBLE tells the reward of single steps by an Ensemble, which this reward model is not.")
        self.living, self.learner, self.fitting, self.teacher, self.memory = living, learner, fitting, teacher, memory
        self.settings, self.seed, self.model = settings, seed, fitting.model
        self.sessions: list[Session] = []
        self.asked: tuple[list[Trajectory], list[Trajectory], list[float]] = ([], [], [])
        """First and second segments that were answered, and P(the first is preferred)."""
        self._noise, self._spread = torch.Generator().manual_seed(seed), Spread()
        self._step = self._questions = 0
        self._last = 0

    def reward(self, observations: Float[Tensor, "n observed"], actions: Float[Tensor, "n acted"]) -> Float[Tensor, "n"]:
        """What the model says, the mean over members."""
        with torch.no_grad():
            return self.model.each(observations, actions).mean(0)

    def run(self, steps: int) -> list[Session]:
        """So many steps more. The sessions so far."""
        its, begin = self.settings, self.settings.first + self.settings.unsupervised
        doing, wander = acting(self.learner.policy, self._noise), wandering(self.learner.policy.acted, self._noise)
        for _ in range(steps):
            if self._step == begin:
                self.ask()
                self.learner.forget_critics()
                for _ in range(its.after_reset):
                    self.learner.update(self.memory.sample(its.batch))
            elif self._step > begin:
                if self._step - self._last >= its.interact and self._questions < its.budget:
                    self.ask()
                self.learner.update(self.memory.sample(its.batch))
            elif self._step > its.first:
                self._look_for_the_new()
            found = self.living.step(wander if self._step < its.first else doing)
            self.memory.add(found.told(self.reward))
            self._step += 1
        return self.sessions

    def _look_for_the_new(self) -> None:
        some = self.memory.sample(self.settings.batch)
        new = novelty(some.observations, self.memory.all.observations, self.settings.neighbours)
        self._spread.add(new)
        self.learner.update(replace(some, rewards=new / self._spread.deviation))

    def ask(self) -> None:
        """One session: questions, the reward model on all answers so far, every remembered step told anew."""
        its = self.settings
        count = min(its.queries, its.budget - self._questions)
        first, second = self._pairs(count)
        seed = self.seed * 100_003 + len(self.sessions)
        margin = usual(self.living.returns, its.segment, self.living.limit)
        said = self.teacher.answer(first, second, usual=margin, seed=seed).first
        kept = np.flatnonzero(~np.isnan(said)).tolist()
        self.asked[0].extend(first[i] for i in kept)
        self.asked[1].extend(second[i] for i in kept)
        self.asked[2].extend(float(said[i]) for i in kept)
        self._questions, self._last = self._questions + count, self._step
        accuracy = float("nan")
        if self.asked[2]:
            one, other, told = steps_of(self.asked[0]), steps_of(self.asked[1]), torch.tensor(self.asked[2])
            accuracy = self.fitting.fit(one, other, told, its.epochs)[-1]
            self.memory.relabel(self.reward)
        self.sessions.append(Session(self._step, count, len(kept), accuracy))

    def _pairs(self, count: int) -> tuple[list[Trajectory], list[Trajectory]]:
        """The pairs that are asked now."""
        its = self.settings
        seed = 2 * (self.seed * 100_003 + len(self.sessions))
        many = count if not self.sessions or its.selection == "uniform" else count * its.candidates
        lived = self.living.lived[-its.recent :]
        first, second = (segments(lived, its.segment, many, seed + k) for k in range(2))
        if many == count:
            return first, second
        one, other = steps_of(first), steps_of(second)
        told = wins(self.model, one, other).numpy()
        before = None if not self.asked[0] else _flat(steps_of(self.asked[0]), steps_of(self.asked[1]))
        best = chosen(its.selection, count, candidates=many, wins=told, seen=_flat(one, other), known=before)
        return [first[i] for i in best], [second[i] for i in best]


def _flat(first: Steps, second: Steps) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What was seen in both segments of each pair, as one row."""
    return torch.cat([first.observations.flatten(1), second.observations.flatten(1)], 1).double().numpy()

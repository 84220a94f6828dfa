"""A reaching arm learns from preferences between its own episodes: whole trajectories, single steps, random successes, imitation.

Claim     Preferences between whole trajectories (TPO) raise success above imitation, and above the same loss on single steps and on
          random pairs of a success and a failure; nearly all of it comes in the first round.
Source    GRAPE: Zhang et al. 2024, arXiv 2411.19309 (its experiments are on OpenVLA in Simpler-Env and LIBERO; this is the
          smallest form).
Run       Meta-World's reach-v3, 60 steps. A Gaussian MLP imitates 10 episodes of a clumsy scripted expert. Each round: 32 starts, 6
          episodes each, scored by 0.01 · log π + R_ext + 5 · success (the code's weights; R_ext of one stage whose cost is the
          distance to the goal), the best of a start against the worst; DPO(beta=0.1), the same object as for text, held against the
          round's start; 2 passes of 16 pairs, AdamW at 1e-3. Three rounds. 100 unseen starts, one episode each, with the same noise
          for all. 3 seeds. Budget: 400 CPU-seconds.
Showed    Success, 0.37 [0.30, 0.44] under imitation, is 0.72 [0.37, 1.07], 0.90 [0.78, 1.01] and 0.91 [0.86, 0.97] after the three
          rounds: a gain of 0.54 [0.51, 0.57], two thirds of it in the first. Single steps are 0.12 [0.03, 0.22] behind after the
          second round and caught up after the third, −0.007 [−0.07, +0.06]; random pairs not surely behind after the second,
          −0.16 [−0.41, +0.08], nor after the third, −0.02 [−0.09, +0.04]. 377 CPU-seconds.

    python recipes/grape.py
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from study import Study, study

from penchant.domains.base import Encoded
from penchant.domains.policy import worlds
from penchant.domains.policy.demo import CLUMSY, EPISODES, LIMIT, TASK, imitating, scripted
from penchant.domains.policy.domain import Behaviour
from penchant.domains.policy.policy import ControlPolicy
from penchant.domains.policy.rollouts import Stage
from penchant.domains.policy.windows import windows
from penchant.engine.batching import steps as plan_steps
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Scorer
from penchant.engine.step import Step
from penchant.feedback.pairing import crossed
from penchant.feedback.trajectories import Trajectory
from penchant.files import cache_folder
from penchant.objectives import DPO, Pairs
from penchant.rewards.base import Context
from penchant.rewards.behaviour import Success
from penchant.rewards.stages import CODE, Guided, StageCosts

ROUNDS, STARTS, EACH, BATCH, PASSES, RATE = 3, 32, 6, 16, 2, 1e-3
TPO = DPO(beta=0.1)
COSTS = StageCosts(
    stages=lambda y: [0] * len(y),
    costs=lambda y: {"distance": y.info["obj_to_target"]},
    allowed=({"distance": 3.0},),  # what a good episode spends on its way
    weights={"distance": 0.3},
)
PLAINLY = Precision("fp32", "highest", {})


@cache
def stage() -> Stage:
    """Simulators, made once."""
    return Stage(worlds.make, at_once=8)


@cache
def imitated(seed: int) -> ControlPolicy:
    """What all arms of one seed begin with."""
    return imitating(scripted(TASK, EPISODES, LIMIT, CLUMSY, seed), TASK, seed)


def guided(policy: ControlPolicy, domain: Behaviour, rows: Encoded, episodes: Sequence[Trajectory]) -> list[float]:
    """The score of every episode, flat."""
    with torch.no_grad():
        y = domain.score(policy, rows)
    logp = [x[m] for x, m in zip(y.logp, y.mask, strict=True)]
    judge = Guided(COSTS, lambda contexts, found: logp, CODE)
    return judge([Context(TASK)] * len(episodes), episodes).total.tolist()


def preferred(how: str, policy: ControlPolicy, domain: Behaviour, starts: Sequence[int], each: int, seed: int) -> Encoded:
    """Pairs of a round, both of one start."""
    made = domain.sample(policy, [f"{TASK} seed {s}" for s in starts], count=each, limit=LIMIT, seed=seed, scored=False)
    assert made.shown is not None
    flat = [y for ys in made.shown for y in ys]
    scores = np.array(guided(policy, domain, made.encoded, flat)).reshape(len(starts), each)
    draw, chosen = np.random.default_rng(seed), []
    for row, some in enumerate(made.shown):
        if how == "random":
            done = [Success().score("", y) for y in some]
            good, bad = ([k for k, x in enumerate(done) if x == want] for want in (1.0, 0.0))
            both = [(int(draw.choice(good)), int(draw.choice(bad)))] if good and bad else []
        else:
            both = [(i, j) for i, j, _ in crossed(scores[row].tolist(), 1)]
        chosen += [(row, i, j) for i, j in both]
    rows = made.encoded
    pairs = Encoded(
        Pairs,
        tuple(rows.contexts[row] for row, _, _ in chosen),
        tuple((rows.responses[row][i], rows.responses[row][j]) for row, i, j in chosen),
        tuple(range(1, len(chosen) + 1)),
    )
    return windows(pairs, 1) if how == "steps" else pairs


def learned(policy: ControlPolicy, domain: Behaviour, rows: Encoded, seed: int, passes: int, batch: int) -> None:
    """The policy after so many passes over the pairs, held against itself as it was before them."""
    start = policy.twin()
    scorer = Scorer(domain, policy, PLAINLY, torch.device("cpu"), 10**6, None, lambda: start)
    anchors = Anchors(scorer, TPO, Settings(), Accelerator(cpu=True), cache_folder() / "grape", lambda *_: None)
    material = anchors.material(rows, "pairs")
    optimiser = torch.optim.AdamW(policy.parameters(), lr=RATE, weight_decay=0.0)
    step = Step(policy, domain, TPO, optimiser, Accelerator(cpu=True), PLAINLY, tokens=10**6, clip=1.0)
    for some in plan_steps(len(rows), batch, passes, seed, None):
        step(material, some, {})


def success(policy: ControlPolicy, domain: Behaviour, starts: int) -> float:
    """Share of unseen starts from which the goal is reached."""
    asked = [f"{TASK} seed {500_000 + k}" for k in range(starts)]
    made = domain.sample(policy, asked, limit=LIMIT, seed=77, scored=False)
    assert made.shown is not None
    return float(np.mean([Success().score("", ys[0]) for ys in made.shown]))


def run(
    how: str, seed: int, rounds: int = ROUNDS, starts: int = STARTS, each: int = EACH, tried: int = 100
) -> dict[str, float]:
    """One arm with one seed: success before, and after every round."""
    torch.set_num_threads(1)
    policy = deepcopy(imitated(seed))
    domain = Behaviour(policy, stage=stage())
    found = {"imitation": success(policy, domain, tried)}
    for n in range(rounds):
        begun = [100_000 + 1000 * seed + starts * n + k for k in range(starts)]
        rows = preferred(how, policy, domain, begun, each, seed * 100 + n)
        if len(rows):
            # single steps: as many optimiser steps as whole trajectories get
            batch = BATCH * LIMIT if how == "steps" else BATCH
            learned(policy, domain, rows, seed * 100 + n, PASSES, batch)
        found[f"round {n + 1}"] = success(policy, domain, tried)
    found["gain"] = found[f"round {rounds}"] - found["imitation"]
    return found


def grape(seeds: int = 3) -> Study:
    arms: Mapping[str, Any] = {name: lambda seed, name=name: run(name, seed) for name in ("whole", "steps", "random")}
    return study(arms, range(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    print(grape(parser.parse_args().seeds))


if __name__ == "__main__":
    main()

"""The policy called policy-demo: a small Gaussian policy that imitates a clumsy expert of Meta-World's reach-v3, trained here,
once. It reaches the goal in some four of ten episodes, so that there is something to prefer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from penchant.domains.policy import worlds
from penchant.domains.policy.actions import Gaussian
from penchant.domains.policy.policy import DEMO, POLICY, ControlPolicy, built
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.files import cache_folder, fingerprint, whole_folder

TASK = "reach-v3"
EPISODES, LIMIT, CLUMSY = 10, 60, 0.5
"""Of the expert: how many, how long, and the standard deviation of the noise on its actions."""


def scripted(task: str, episodes: int, limit: int, noise: float, seed: int = 0) -> list[Trajectory]:
    """Episodes of Meta-World's scripted expert with Gaussian noise on its actions, which are then clipped to [−1, 1]. Episode
    k starts as seed 10,000 · seed + k says."""
    try:
        from metaworld.policies import ENV_POLICY_MAP
    except ImportError:
        raise Refusal('scripted experts come with Meta-World: pip install "penchant[embodied]".') from None
    world, expert, draw = worlds.make(task), ENV_POLICY_MAP[task](), np.random.default_rng(seed)
    found = []
    for k in range(episodes):
        seen, rows = world.reset(10_000 * seed + k), []
        for _ in range(limit):
            with worlds.quiet():
                wanted = np.clip(expert.get_action(seen.astype(np.float64)), -1, 1)
            action = np.clip(wanted + noise * draw.normal(size=wanted.shape), -1, 1).astype(np.float32)
            after, reward, ended, cut, told = world.step(action)
            rows.append((seen, action, reward, float(told["success"])))
            seen = after
            if ended or cut:
                break
        observations, actions, rewards, success = (np.array(x) for x in zip(*rows, strict=True))
        found.append(Trajectory(observations, actions, rewards, seen, False, {"success": success}))
    return found


def imitating(
    shown: list[Trajectory], task: str, seed: int = 0, steps: int = 600, hidden: tuple[int, ...] = (64, 64)
) -> ControlPolicy:
    """A Gaussian policy after so many steps of maximum likelihood on 256 of the shown steps each."""
    observations = torch.from_numpy(np.concatenate([y.observations for y in shown]))
    actions = torch.from_numpy(np.concatenate([y.actions for y in shown]))
    torch.manual_seed(seed)
    policy = built(observations.shape[1], Gaussian(actions.shape[1]), actions.shape[1], (task,), hidden)
    policy.normalise(observations)
    optimiser, context = torch.optim.Adam(policy.parameters(), lr=1e-3), torch.zeros(1, 2, dtype=torch.long)
    make = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        some = torch.randint(len(observations), (256,), generator=make)
        loss = -policy(context, observations[some][None], actions[some][None])["logp"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return policy


def folder() -> Path:
    """The trained policy in the cache, as `load` reads it; made at the first call, in a few seconds."""
    name = f"{DEMO}-{fingerprint(Path(__file__).read_bytes(), torch.__version__)[:12]}"
    target = cache_folder() / "models" / name
    if not (target / POLICY).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{name}.lock"):  # a second process waits, and finds the first one's work
            if not (target / POLICY).is_file():
                with whole_folder(target) as draft:
                    imitating(scripted(TASK, EPISODES, LIMIT, CLUMSY), TASK).save(draft)
    return target

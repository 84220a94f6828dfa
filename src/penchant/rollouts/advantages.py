"""From judged samples to rollouts with advantages, computed once over the whole set, before any of it is split into steps. It pairs
nothing and trains nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.domains.base import Encoded, Samples
from penchant.errors import Refusal
from penchant.feedback.records import Accounting
from penchant.rewards.base import Judgement

Baseline = Literal["grpo", "flow-grpo", "dr-grpo", "rloo"]
"""What a reward is held against; all subtract the mean of the prompt's own samples.
grpo: divided by their standard deviation + 1e-4 (Shao et al. 2024, arXiv 2402.03300; of a sample, as TRL has it).
flow-grpo: divided by the standard deviation of all rewards of the set + 1e-4 (of a population, as in yifan123/flow_grpo).
dr-grpo: not divided (Liu et al. 2025, arXiv 2503.20783).
rloo: times K/(K − 1), which is the reward less the mean of the others (Ahmadian et al. 2024, arXiv 2402.14740)."""
LEAST = 1e-4
"""Added to a standard deviation that is divided by."""


@dataclass(frozen=True, eq=False)
class RolloutSet:
    """What a set of samples says to a policy gradient."""

    encoded: Encoded
    """`data` is Rollouts, its columns reward and advantage are finite; fixed until the set is used up."""
    failed: int
    """Prompts left out because judging one of their samples failed."""
    level: int
    """Prompts whose samples were all worth the same, one sample among them: their advantages are 0."""


def rollout_set(samples: Samples, judgement: Judgement, baseline: str = "grpo") -> RolloutSet:
    """Samples with rewards and advantages. `judgement` has one entry per response, in the order of `samples.encoded`. Raises
    Refusal where no prompt is left."""
    if baseline not in get_args(Baseline):
        raise Refusal(f"baseline={baseline!r}; it must be one of {', '.join(get_args(Baseline))}.")
    encoded, total = samples.encoded, judgement.total.double()
    if len(total) != sum(encoded.counts):
        raise Refusal(f"{sum(encoded.counts)} responses were sampled, but {len(total)} judged; there must be as many.")
    groups = total.split(encoded.counts)
    kept = [row for row, reward in enumerate(groups) if len(reward) and bool(reward.isfinite().all())]
    failed = len(groups) - len(kept)
    if not kept:
        raise Refusal(f"judging failed for all {len(groups)} prompts, so there is nothing to learn from.")
    rewards = [groups[row] for row in kept]
    advantage = advantages(rewards, baseline)
    left = encoded.select(kept)
    columns = {**left.columns, "reward": torch.cat(rewards).float(), "advantage": torch.cat(advantage).float()}
    counted = Accounting(read=len(groups), kept=len(kept), dropped={"judging failed": failed} if failed else {})
    level = sum(bool((reward == reward[0]).all()) for reward in rewards)
    return RolloutSet(replace(left, columns=columns, accounting=counted), failed, level)


def advantages(rewards: list[Float[Tensor, "_"]], baseline: str) -> list[Float[Tensor, "_"]]:
    """The advantages of each group's rewards. A group of one, or of equal rewards, has advantages 0."""
    spread = torch.cat(rewards).std(correction=0)
    out = []
    for reward in rewards:
        k, apart = len(reward), reward - reward.mean()
        if bool((reward == reward[0]).all()):
            out.append(torch.zeros_like(reward))  # their mean may be rounded
        elif baseline == "grpo":
            out.append(apart / (reward.std() + LEAST))
        elif baseline == "flow-grpo":
            out.append(apart / (spread + LEAST))
        else:
            out.append(apart * k / (k - 1) if baseline == "rloo" else apart)
    return out

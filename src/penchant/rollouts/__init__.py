"""Where on-policy data comes from: prompts sampled, judged and paired. It knows no loop and trains nothing."""

from penchant.rollouts.advantages import RolloutSet, rollout_set
from penchant.rollouts.pairs import PairSet, make_pairs
from penchant.rollouts.prompts import contexts_of, demo_prompts
from penchant.rollouts.round import Round, Sampling, rollout

__all__ = [
    "PairSet",
    "RolloutSet",
    "Round",
    "Sampling",
    "contexts_of",
    "demo_prompts",
    "make_pairs",
    "rollout",
    "rollout_set",
]

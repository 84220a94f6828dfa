"""Models of what people want: judges and comparers. It knows texts and numbers, no training loop."""

from penchant.rewards.asking import Asking
from penchant.rewards.base import Comparer, Context, Judge, Judgement
from penchant.rewards.combine import Weighted
from penchant.rewards.compare import as_comparer, as_judge
from penchant.rewards.endpoint import Asked, EndpointComparer, EndpointJudge
from penchant.rewards.function import BatchedFunctionJudge, FunctionJudge
from penchant.rewards.naming import load_judge
from penchant.rewards.reward_model import RewardModel
from penchant.rewards.rules import LengthRepetition
from penchant.rewards.vader import Vader

__all__ = [
    "Asked",
    "Asking",
    "BatchedFunctionJudge",
    "Comparer",
    "Context",
    "EndpointComparer",
    "EndpointJudge",
    "FunctionJudge",
    "Judge",
    "Judgement",
    "LengthRepetition",
    "RewardModel",
    "Vader",
    "Weighted",
    "as_comparer",
    "as_judge",
    "load_judge",
]

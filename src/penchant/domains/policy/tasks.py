"""What a policy is asked for, as a prompt: a task by name, and where it starts. No simulator is known here."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from penchant.errors import Refusal, nearest
from penchant.feedback.records import Prompt, as_text
from penchant.words import brief

ASKED = re.compile(r"(?s)(.*?)(?: seed (\d{1,9}))?")
ANYWHERE = -1
"""The start of a prompt that names none."""


def context_of(prompt: Prompt, tasks: Sequence[str]) -> Int[Tensor, "two"]:
    """A prompt as numbers: the task's place among the policy's, and the seed of its start. A prompt is the name of a task, as
    "reach-v3", or that and a start, as "reach-v3 seed 17": equal prompts with a seed start alike; without one only the episodes
    that are sampled for one row do. Raises Refusal for a task the policy does not know."""
    text = as_text(prompt)
    if text in tasks:
        return torch.tensor([tasks.index(text), ANYWHERE])
    found = ASKED.fullmatch(text)
    assert found is not None  # it takes any text
    task, seed = found.groups()
    if task not in tasks:
        raise Refusal(f"the prompt {brief(text)} names no task of this policy; {nearest(task, tasks)}")
    return torch.tensor([tasks.index(task), ANYWHERE if seed is None else int(seed)])

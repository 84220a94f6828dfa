"""What was asked, held against itself before anything is loaded: settings that contradict each other or would do nothing.
Data and model are not looked at here."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection

from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.feedback.goals import Goals
from penchant.objectives.base import Objective, kinds_of, weighs
from penchant.objectives.scored import Rollouts
from penchant.rewards.asking import Asking
from penchant.rewards.naming import Named
from penchant.rollouts.server import address
from penchant.running.judging import paired_by

PICTURES = ("kappa", "paper_beta", "weighting", "denoising_steps", "guidance", "size")
"""Settings that say something of pictures alone."""
TEXTS = ("train", "history", "revision", "allow_bin", "template", "max_length", "too_long", "goals")
TEXTS += ("engine", "server", "max_memory")
"""Settings that say something of texts alone."""
DRAWN = ("limit", "temperature", "top_p")
"""Settings of responses that are drawn step by step."""
ADAPTED = ("lora", "lora_alpha", "lora_targets")
"""Settings of adapters."""


def only(settings: Settings, others: Collection[str], what: str) -> None:
    """Refuses settings of other kinds of models. what: the kind of this one, in words."""
    for name in sorted(settings.model_fields_set.intersection(others)):
        if getattr(settings, name) != Settings.model_fields[name].default:
            raise Refusal(f"{name}={getattr(settings, name)!r} says nothing to {what}; leave it out.")


def consistent(objective: Objective, settings: Settings, judge: Named | None) -> None:
    """Refuses settings that contradict each other before anything is loaded."""
    if set(kinds_of(objective)) == {Rollouts}:
        raise Refusal(
            f"{objective!r} learns from sampled responses with advantages, which neither a file nor a round of pairs has: sample "
            "and judge in Python, and give penchant.rollouts.rollout_set(…) to penchant.engine.step.Step."
        )
    if settings.rounds and judge is None:
        raise Refusal(f"rounds={settings.rounds} samples responses, and somebody must judge them: give --judge.")
    if settings.rounds:
        paired_by(objective, settings, judge)
    if objective.needs.head != "lm":
        if settings.rounds:
            raise Refusal(f"{objective!r} trains a reward model, which samples nothing: leave --rounds out.")
        if judge is not None:
            raise Refusal(f"{objective!r} trains a reward model, which has no samples to judge: leave --judge out.")
        if settings.goals is not None:
            raise Refusal(f"{objective!r} trains a reward model; goals are put to a model that answers. Leave --goals out.")
    idle = {
        "without lora": () if settings.lora else ("lora_alpha", "lora_targets"),
        "with max_memory, which chooses it": () if settings.max_memory is None else ("tokens",),
        "without rounds": () if settings.rounds else ("prompts_per_round", "samples", "pairing", "engine"),
        "without engine='vllm'": () if settings.engine == "vllm" else ("server",),
    }
    for why, names in idle.items():
        for name in sorted(settings.model_fields_set.intersection(names)):
            raise Refusal(f"{name}={getattr(settings, name)!r} does nothing {why}; leave one out or give the other.")
    if settings.engine == "vllm":
        if settings.server is None:
            raise Refusal("engine='vllm' samples on a server: give its address, as --server http://127.0.0.1:8000.")
        address(settings.server)
    if settings.history and "history" not in objective.needs.anchors:
        raise Refusal(f"history={settings.history!r} is not read by {objective!r}; leave one out or take the other.")
    if len(set(settings.history)) < len(settings.history):
        raise Refusal(f"history={settings.history!r} names a model twice.")
    if settings.rounds and weighs(objective):
        raise Refusal(f"{objective!r} reads the data's weights of single tokens, which sampled responses do not have.")
    if settings.goals is not None:
        Goals(*settings.goals)  # a scale that is none is refused now
    if settings.rounds and settings.goals is not None:
        raise Refusal("goals are put over scores that the data holds; an on-policy run samples its own. Leave --goals out.")
    for tracker in settings.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise Refusal(f"the tracker {tracker!r} is not installed: pip install {tracker}.")
    if settings.rounds and settings.steps is not None:
        raise Refusal("steps counts steps over a file; on-policy runs are counted in rounds and epochs. Leave --steps out.")
    if objective.needs.mismatched and settings.batch < 2:
        raise Refusal(
            f"batch={settings.batch}: {objective!r} estimates a KL from other rows' responses in the step, so it needs at "
            "least 2 rows; KTO's authors use 32."
        )


def splits(settings: Settings, judge: Named | None) -> None:
    """Refuses what a policy that is split over processes cannot do."""
    if settings.train != "all":
        raise Refusal(
            f"train={settings.train!r} reads what frozen layers made from each process's own disk, and layers that are split "
            "over processes must all run together: leave --train out, or launch without FSDP."
        )
    if settings.max_memory is not None:
        raise Refusal(
            f"max_memory={settings.max_memory:g} is measured by one process alone, which a policy that is split over processes "
            "cannot do: leave --max-memory out and give --tokens, or launch without FSDP."
        )
    if isinstance(judge, Asking) and judge.model is None:
        raise Refusal(
            f"the judge {judge.name!r} asks the run's own start, which is split over processes: name a model for it."
        )

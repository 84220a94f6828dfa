"""Who judges a run, made ready: a judge that asks a language model is given one to ask, the run's own start or another.
What is asked, and what becomes of the answers, is decided below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from penchant.domains.base import Cost, Domain, Encoded
from penchant.domains.text.models import load
from penchant.engine.precision import Precision, choose
from penchant.engine.settings import Settings
from penchant.engine.sources import Scorer
from penchant.errors import Refusal
from penchant.feedback.pairing import How
from penchant.feedback.ranking import Ranking
from penchant.feedback.records import Prompt, Row
from penchant.objectives.base import Objective
from penchant.rewards.asking import AnswerScore, Asking
from penchant.rewards.base import Comparer, Judge
from penchant.rewards.naming import Named
from penchant.rewards.reward_model import RewardModel
from penchant.running.scoring import score_of


def ready(judge: Named | None, scorer: Scorer, settings: Settings) -> Judge | Comparer | None:
    """The judge itself; a trained one with its model; one that asks a language model with the model it asks: the run's start,
    frozen, which a moving policy does not move; or the one it names, in its own words and template."""
    if isinstance(judge, RewardModel):
        return judge.by(score_of(judge, scorer.precision, scorer.device, settings))
    if not isinstance(judge, Asking):
        return judge
    if judge.model is None:
        return judge.by(answer_score(scorer.domain, scorer.at_start, settings.tokens))
    return _other(judge, judge.model, scorer.precision, scorer.device, settings)


def alone(judge: Named) -> Judge | Comparer:
    """A judge outside a run: one that asks a language model must name it."""
    if not isinstance(judge, Asking | RewardModel):
        return judge
    if isinstance(judge, Asking) and judge.model is None:
        raise Refusal(
            "the judge self is the model that a run starts from, and there is no run here; name it, as model:NAME."
        )
    settings, device = Settings(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(settings.thread_count)
    precision = choose(settings.precision, device)
    precision.apply()
    if isinstance(judge, RewardModel):
        return judge.by(score_of(judge, precision, device, settings))
    return _other(judge, str(judge.model), precision, device, settings)


def _other(judge: Asking, model: str, precision: Precision, device: torch.device, settings: Settings) -> Comparer:
    """The comparer that asks a model by name, loaded for it."""
    other = load(model, allow_bin=settings.allow_bin)
    other.policy.to(device).requires_grad_(False)
    scorer = Scorer(other.domain, other.policy, precision, device, settings.tokens, None, lambda: other.policy)
    return judge.by(answer_score(other.domain, scorer.now, settings.tokens))


def paired_by(objective: Objective, settings: Settings, judge: Named | None) -> None:
    """Refuses a pairing that the judge cannot carry out, or that leaves out what the objective reads."""
    ranking = settings.pairing in get_args(Ranking)
    if isinstance(judge, Comparer | Asking) and not ranking:
        raise Refusal(
            f"the judge {judge.name!r} compares responses and gives no scores, so they cannot be paired by "
            f"{settings.pairing!r}: set --pairing to one of {', '.join(get_args(Ranking))}."
        )
    given = "strength" if ranking else "margin"
    if missing := objective.needs.columns & ({"strength", "margin"} - {given}):
        other = get_args(How if ranking else Ranking)
        raise Refusal(
            f"{objective!r} needs the column {', '.join(missing)}, but pairing={settings.pairing!r} gives {given}: set "
            f"--pairing to one of {', '.join(other)}."
        )


def answer_score(domain: Domain, score: Callable[[Encoded], Tensor], budget: int) -> AnswerScore:
    """log π(answer | prompt) of single answers, without a stop token after them, a budget of tokens at a time."""

    def scores(prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        cut = {"completion_stopped": False}
        rows = [Row(n, "labelled", *one, label=True, extra=cut) for n, one in enumerate(_alone(prompts, answers))]
        encoded = domain.encode(rows)
        out = torch.full((len(rows),), torch.nan)  # a prompt that is too long is no judgement
        for group in Cost(encoded.sizes, padded=True).micro_batches(budget):
            some = encoded.select(group)
            out[[encoded.numbers[i] for i in group]] = score(some).cpu().sum(-1)
        return out

    return scores


def _alone(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[tuple[Prompt, tuple[str]]]:
    return [(prompt, (answer,)) for prompt, answer in zip(prompts, answers, strict=True)]

"""Trained models made ready to judge: a reward model by its own scores, a finished run by the reward that its objective implies.
How scores become judgements is decided below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from penchant.domains.base import Encoded
from penchant.domains.text.classifiers import load_classifier
from penchant.domains.text.models import Loaded, load
from penchant.engine.folder import RunFolder
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Scorer
from penchant.errors import Refusal
from penchant.evaluation.evidence import RunEvidence
from penchant.feedback.records import Prompt, Row
from penchant.files import read_json
from penchant.objectives.base import Objective, rewards
from penchant.objectives.reader import read
from penchant.objectives.scored import Scored, masks
from penchant.rewards.reward_model import RewardModel, Score


def score_of(judge: RewardModel, precision: Precision, device: torch.device, settings: Settings) -> Score:
    """What gives the judge's scores, on this device. A reward model reads in float32, whatever the run does: two responses
    that differ must not be tied by rounding."""
    if judge.kind == "reward":
        return load_classifier(judge.model, device, settings.tokens, allow_bin=settings.allow_bin)
    return _implicit(judge.model, precision, device, settings)


def _implicit(name: str, precision: Precision, device: torch.device, settings: Settings) -> Score:
    """The reward of a finished run's own objective, of its model held against the model it began with."""
    evidence = _finished(name)
    objective = read(str(evidence.settings["objective"]))
    needs = objective.needs
    if needs.head != "lm":
        raise Refusal(f"implicit:{name}: this run trained a reward model, which judges by itself: reward:{name}/model.")
    if not rewards(objective) or needs.scoring or needs.anchors - {"ref"} or needs.mismatched:
        raise Refusal(
            f"implicit:{name}: {objective!r} gives single responses no reward from log π and log π_ref alone, so its run cannot "
            "judge. Objectives such as DPO, IPO and SimPO do."
        )
    folder = _folder(name)
    ours = _loaded(str(folder / "model"), evidence, device, settings)
    start = _loaded(str(evidence.settings["model"]), evidence, device, settings) if needs.anchors else None
    if start is not None and start.domain.fingerprint != ours.domain.fingerprint:
        raise Refusal(
            f"implicit:{name}: {evidence.settings['model']!r} is not what the run began with: it reads text otherwise."
        )

    def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        rows = [Row(i, "labelled", x, (y,), label=True) for i, (x, y) in enumerate(zip(prompts, responses, strict=True))]
        encoded = ours.domain.encode(rows)
        out = torch.full((len(rows),), torch.nan)  # a row that is too long is no judgement
        by = [_scorer(one, precision, device, settings) for one in (ours, start) if one is not None]
        for group in by[0].micro_batches(encoded) if len(encoded) else []:
            some = encoded.select(group)
            out[[encoded.numbers[i] for i in group]] = _rewards(objective, by, some).float().cpu()
        return out

    return score


def _rewards(objective: Objective, by: Sequence[Scorer], rows: Encoded) -> Tensor:
    logp, *ref = (one.now(rows) for one in by)
    return objective.reward(Scored(logp, masks(rows.lengths).to(logp.device), ref[0] if ref else None))


def _scorer(loaded: Loaded, precision: Precision, device: torch.device, settings: Settings) -> Scorer:
    policy = loaded.policy
    return Scorer(loaded.domain, policy, precision, device, settings.tokens, None, lambda: policy)


def _loaded(name: str, evidence: RunEvidence, device: torch.device, settings: Settings) -> Loaded:
    """A model of the run, reading text as the run did."""
    asked = evidence.settings
    found = load(name, template=asked["template"], max_length=asked["max_length"], allow_bin=settings.allow_bin)
    found.policy.to(device).requires_grad_(False)
    return found


def _folder(name: str) -> Path:
    """The run's folder, also where its model was named."""
    folder = Path(name).expanduser()
    return folder.parent if folder.name == "model" and (folder.parent / "evidence.json").is_file() else folder


def _finished(name: str) -> RunEvidence:
    run = RunFolder(_folder(name))
    if not run.finished:
        raise Refusal(
            f"implicit:{name}: this folder holds no finished run, which would say by what objective and from what start its model "
            "was trained. A model with a head for scores is named reward:NAME."
        )
    return RunEvidence.from_json(read_json(run.evidence))

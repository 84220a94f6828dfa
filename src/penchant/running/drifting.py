"""Puts probes to the start of a finished run and to every checkpoint that it kept. It trains nothing, and what the answers mean
is worked out in evaluation/drift.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file

from penchant.domains.base import Encoded
from penchant.domains.text.policy import reference_of
from penchant.engine.folder import RunFolder
from penchant.engine.precision import choose
from penchant.engine.settings import Settings
from penchant.engine.sources import Scorer
from penchant.errors import Refusal
from penchant.evaluation.evidence import RunEvidence, StanceEvidence
from penchant.evaluation.probes import Probes
from penchant.feedback.records import Row
from penchant.files import read_json
from penchant.objectives.scored import Lists
from penchant.running.models import Models
from penchant.running.voice import Voice
from penchant.words import brief

GROUP = 64
"""Probes between two movements of the progress bar."""


def probed(folder: str | Path, probes: Probes, given: Settings, voice: Voice) -> RunEvidence:
    """The run's evidence with the stances of its start and of its checkpoints. given: tokens, threads and precision (auto is fp32
    here: a drift is a small difference). Raises Refusal for a run that is not finished, that trained a reward model or kept no
    checkpoint, and for a start that is no longer what it was."""
    run = RunFolder(folder)
    if not run.finished:
        raise Refusal(f"{str(folder)!r} holds no finished run; --probes asks a run's checkpoints.")
    evidence = RunEvidence.from_json(read_json(run.evidence))
    if not evidence.speaks:
        raise Refusal(f"{str(folder)!r} trained a model of {evidence.makes}, which answers nothing, so it takes no stance.")
    kept = sorted(run.checkpoints.glob("step-*"))
    if not kept:
        raise Refusal(f"{run.checkpoints} holds no checkpoint, so there is nothing to follow from the start on.")

    fields = {name: value for name, value in evidence.settings.items() if name in Settings.model_fields}
    threads = given.threads or int(fields.get("threads") or 0)
    settings = Settings.of({**fields, "threads": threads, "tokens": given.tokens, "allow_bin": given.allow_bin})
    torch.set_num_threads(settings.thread_count)
    device = Accelerator().device
    name = str(evidence.settings["model"])
    voice.say(f"loading {name}")
    loaded = Models(name, settings, lambda policy: policy.to(device)).load()
    began = run.identity["model"]
    if loaded.source["fingerprint"] != began:
        raise Refusal(
            f"model {name!r} is no longer what it was when this run began, so its stance then cannot be asked for. Put its files "
            "back, or name the folder that holds them as they were."
        )
    precision = choose("fp32" if given.precision == "auto" else given.precision, device)
    precision.apply()
    with precision.forward(device):
        loaded.policy.follow(loaded.policy.probed())
    policy = loaded.policy
    scorer = Scorer(loaded.domain, policy, precision, device, settings.tokens, reference_of(policy), lambda: policy)

    steps, table, mass = [0], [], []
    for step, place in [(0, None), *((int(path.name.removeprefix("step-")), path) for path in kept)]:
        if place is not None:
            policy.load_state(_weights(place))
            steps.append(step)
        said = f"probing step {step:,}"
        p, all_of_them = asked(scorer, probes, lambda done, said=said: voice.progress(said, done, len(probes.probes)))
        table.append(p)
        mass.append(all_of_them)
    found = StanceEvidence(probes.name, probes.fingerprint, list(probes.stances), probes.topics, steps, table, mass)
    return replace(evidence, stances=found)


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(checkpoint / "policy.safetensors")
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{checkpoint} cannot be read ({error}); remove it to measure the others.") from error


def asked(scorer: Scorer, probes: Probes, progress: Callable[[int], None]) -> tuple[list[list[float]], float]:
    """P(stance) of every probe, [probes][stances], and how probable all the answers are together, the mean over probes.

    P(stance) ∝ Σ π(spelling | prompt) over its spellings, with and without a space before them; what would follow a spelling is
    not asked for. Whatever else the model might say is left out of the first number and makes up the second."""
    table: list[list[float]] = []
    mass = 0.0
    for first in range(0, len(probes.probes), GROUP):
        some = probes.probes[first : first + GROUP]
        said = [[text for x in spellings for text in (x, f" {x}")] for probe in some for spellings in probe.answers]
        each = len(probes.stances)
        answers = [tuple(x for part in said[i : i + each] for x in part) for i in range(0, len(said), each)]
        logp = _logp(scorer, [probe.prompt for probe in some], answers)
        stances = torch.stack([part.logsumexp(0) for part in logp.split([len(part) for part in said])]).view(-1, each)
        table += stances.softmax(-1).tolist()
        mass += float(stances.logsumexp(-1).exp().sum())
        progress(first + len(some))
    return table, mass / len(probes.probes)


def _logp(scorer: Scorer, prompts: Sequence[str], answers: Sequence[tuple[str, ...]]) -> torch.Tensor:
    """log π of every answer without a stop token after it, flat, float64. The answers to one prompt are read as a list, so that
    the prompt is read once for all of them."""
    cut = {"completion_stopped": False}
    flat = [(x, y) for x, ys in zip(prompts, answers, strict=True) for y in ys]
    single = scorer.domain.encode(Row(i, "labelled", x, (y,), label=True, extra=cut) for i, (x, y) in enumerate(flat))
    if single.accounting.truncated or len(single) < len(flat):
        lost = next((x for i, (x, _) in enumerate(flat) if i not in set(single.numbers)), flat[0][0])
        raise Refusal(
            f"probes such as {brief(lost)} are longer than the tokens this run reads (its --max-length); shorten them or leave "
            "them out."
        )
    first = [0, *accumulate(map(len, answers))]
    rows = Encoded(
        data=Lists,
        contexts=tuple(single.contexts[i] for i in first[:-1]),
        responses=tuple(tuple(y for (y,) in single.responses[a:b]) for a, b in pairwise(first)),
        numbers=tuple(range(len(prompts))),
        columns={"gain": torch.zeros(len(flat))},
    )
    out = torch.zeros(len(flat), dtype=torch.float64)
    for group in scorer.micro_batches(rows):
        out[rows.places(group)] = scorer.now(rows.select(group)).cpu().double().sum(-1)
    return out

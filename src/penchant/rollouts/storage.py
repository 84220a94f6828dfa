"""A round's samples and judgements as JSON Lines, one line per prompt, exact to the last bit. It knows no policy; the ids
are the sampled ones, so a run that was interrupted between sampling and learning goes on with the same responses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penchant.domains.base import Encoded, Samples, masks
from penchant.errors import Refusal
from penchant.feedback.records import Prompt
from penchant.files import write as write_file
from penchant.objectives.scored import Rollouts, Scored
from penchant.rewards.base import Context, Judgement
from penchant.words import brief

FORMAT = "penchant round 1"
DTYPES = {str(kind): kind for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)}


def write(
    path: Path, about: Mapping[str, Any], contexts: Sequence[Context], samples: Samples, judgement: Judgement
) -> None:
    """Writes the file whole: first a line about the round, then a line per prompt."""
    encoded, counts, y = samples.encoded, samples.encoded.counts, samples.logp
    head = {
        "format": FORMAT,
        **about,
        "prompts": len(encoded),
        "names": judgement.names,
        "dtypes": {
            "reward": str(judgement.reward.dtype),
            "logp": str(y.logp.dtype) if y is not None else None,
            "responses": str(next((x.dtype for _, x in encoded.flat), torch.int64)),
        },
    }
    logp = (
        [None] * len(encoded.lengths)
        if y is None
        else [x[m].tolist() for x, m in zip(y.logp.detach(), y.mask, strict=True)]
    )
    rewards = [[x if math.isfinite(x) else None for x in row] for row in judgement.reward.tolist()]
    steps = [None] * len(rewards) if judgement.steps is None else judgement.steps.tolist()
    responses = [
        {"ids": ids.tolist(), "logp": logp[i], "reward": rewards[i], "valid": valid, "steps": steps[i]}
        for i, ((_, ids), valid) in enumerate(zip(encoded.flat, judgement.valid.tolist(), strict=True))
    ]
    said = iter(responses)
    lines: list[Mapping[str, Any]] = [head]
    for row, context in enumerate(contexts):
        texts = zip(samples.texts[row], samples.stopped[row], strict=True)
        lines.append(
            {
                "number": encoded.numbers[row],
                "prompt": context.prompt,
                "annotator": context.annotator,
                "extra": dict(context.extra),
                "ids": encoded.contexts[row].tolist(),
                "responses": [{"text": text, "stopped": stopped, **next(said)} for text, stopped in texts],
            }
        )
        if len(samples.texts[row]) != counts[row]:
            raise ValueError(f"prompt {row + 1} has {len(samples.texts[row])} texts for {counts[row]} responses.")
    try:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    except (TypeError, ValueError) as error:
        raise Refusal(
            f"the round cannot be saved as JSON ({error}); contexts may carry only what JSON can hold."
        ) from error
    write_file(path, text)


def read(path: Path) -> tuple[dict[str, Any], tuple[Context, ...], Samples, Judgement]:
    """The line about the round, and the round's contexts, samples and judgement."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as missing:
        raise Refusal(f"there is no round at {path}.") from missing
    except ValueError as error:
        raise Refusal(f"{path} is not a round: {brief(str(error), 120)}; remove it and sample the round again.") from error
    head = lines[0] if lines and isinstance(lines[0], dict) else {}
    if head.get("format") != FORMAT or head["prompts"] != len(lines) - 1:
        raise Refusal(f"{path} is not a whole {FORMAT!r}; remove it and sample the round again.")
    rows = lines[1:]
    said = [response for row in rows for response in row["responses"]]
    dtypes = {name: DTYPES[kind] for name, kind in head["dtypes"].items() if kind is not None}
    contexts = tuple(Context(prompt_of(row["prompt"]), row["annotator"], row["extra"]) for row in rows)
    missing = torch.full((len(said),), torch.nan)
    encoded = Encoded(
        Rollouts,
        tuple(ids(row["ids"]) for row in rows),
        tuple(
            tuple(ids(response["ids"], dtypes.get("responses", torch.long)) for response in row["responses"])
            for row in rows
        ),
        tuple(row["number"] for row in rows),
        {"reward": missing, "advantage": missing.clone()},
    )
    samples = Samples(
        encoded,
        tuple(tuple(response["text"] for response in row["responses"]) for row in rows),
        tuple(tuple(response["stopped"] for response in row["responses"]) for row in rows),
        scored((response["logp"] for response in said), encoded.lengths, dtypes["logp"]) if "logp" in dtypes else None,
    )
    reward = [[math.nan if x is None else x for x in response["reward"]] for response in said]
    judgement = Judgement(
        torch.tensor(reward, dtype=dtypes["reward"]).reshape(len(said), len(head["names"])),
        torch.tensor([response["valid"] for response in said], dtype=torch.bool),
        tuple(head["names"]),
        torch.tensor([response["steps"] for response in said]) if said and said[0]["steps"] is not None else None,
    )
    return head, contexts, samples, judgement


def prompt_of(value: Any) -> Prompt:
    return value if isinstance(value, str) else tuple(value)


def ids(value: Sequence[Any], dtype: torch.dtype = torch.long) -> Tensor:
    """A context's or a response's numbers: ids, or the values of what is no text."""
    return torch.tensor(value, dtype=dtype)


def scored(logp: Iterable[Sequence[float]], lengths: Sequence[int], dtype: torch.dtype) -> Scored:
    """The log-probs in rows again, 0 where no step is."""
    mask = masks(lengths)
    out = torch.zeros(mask.shape, dtype=dtype)
    out[mask] = torch.tensor([x for row in logp for x in row], dtype=dtype)
    return Scored(out, mask)

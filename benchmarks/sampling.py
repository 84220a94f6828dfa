"""Four answers to each of four real prompts, by our sampler and by `transformers.generate`, on one thread: CPU seconds, the two
taking turns in one process. `generate` gets its weights in bf16 where ours computes in bf16, which is its fastest way.

    python benchmarks/sampling.py [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

import data

from penchant.domains.text import sampling
from penchant.domains.text.models import load
from penchant.domains.text.tree import collate
from penchant.engine.batching import order
from penchant.feedback import open_source

PROMPTS, COUNT, LIMIT = 4, 4, 32


def measure(rounds: int) -> dict[str, Any]:
    """CPU seconds of both in both number formats, a list over the rounds; the tokens a second, and how many times ours is as
    fast, as medians; and whether greedy answers are the same tokens in float32."""
    torch.set_num_threads(1)
    loaded, half = load("smollm2", max_length=512), load("smollm2", max_length=512)
    policy, model = loaded.policy.eval(), half.policy.plain_model.bfloat16().eval()
    rows = list(open_source(data.hh_harmless(), bad_rows="drop"))
    every = (loaded.domain.chat.prompt(rows[i].prompt) for i in order(len(rows), 0, 0))
    prompts = [prompt for _, prompt in zip(range(PROMPTS), (x for x in every if 60 <= len(x) <= 140), strict=False)]

    def ours(limit: int = LIMIT, temperature: float = 1.0) -> list[list[sampling.Answer]]:
        how: dict[str, Any] = {"stops": (), "top_p": 1.0, "seed": 0, "batch": 8192, "numbers": range(len(prompts))}
        return sampling.generate(policy, prompts, count=COUNT, limit=limit, temperature=temperature, **how)

    seconds: dict[str, list[float]] = {}
    for turn in range(rounds + 1):  # the first warms up
        for name, low, call in (
            ("ours, float32", False, ours),
            ("generate, float32", False, lambda: theirs(policy.plain_model, prompts)),
            ("ours, bf16", True, ours),
            ("generate, bf16 weights", False, lambda: theirs(model, prompts)),
        ):
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                took = _cpu(call)
            if turn:
                seconds.setdefault(name, []).append(took)
    plain = theirs(policy.plain_model, prompts, do_sample=False)
    return {
        "prompts": [len(prompt) for prompt in prompts],
        "answers": COUNT,
        "tokens": LIMIT,
        "cpu_seconds": seconds,
        "tokens_per_second": {n: PROMPTS * COUNT * LIMIT / statistics.median(x) for n, x in seconds.items()},
        "times_as_fast_float32": _ratio(seconds, "generate, float32", "ours, float32"),
        "times_as_fast_bf16": _ratio(seconds, "generate, bf16 weights", "ours, bf16"),
        "greedy_equal": all(
            torch.equal(answers[0].ids, row) for answers, row in zip(ours(temperature=0.0), plain, strict=True)
        ),
    }


def theirs(model: Any, prompts: Sequence[Tensor], do_sample: bool = True) -> Tensor:
    """The answers of `transformers.generate`, none of which ends early."""
    tokens, attention, width = collate(prompts, [prompt[:0] for prompt in prompts], torch.device("cpu"))
    how = {"num_return_sequences": COUNT if do_sample else 1, "max_new_tokens": LIMIT}
    with torch.no_grad():
        made = model.generate(
            tokens, attention_mask=attention, do_sample=do_sample, pad_token_id=0, eos_token_id=None, **how
        )
    return made[:, width:]


def _cpu(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _ratio(seconds: dict[str, list[float]], above: str, below: str) -> float:
    """The median over the rounds of how many times as long one took as the other in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3), indent=1))

"""Four samples to each of four prompts, 32 tokens each and none that ends early: ours as a run draws them, against
`transformers.generate`. Both draw 512 tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from figures import Figure, in_turns, ratio
from workload import CPU, loaded, pairs, precision

from penchant.domains.sampling import generate

PROMPTS, COUNT, LIMIT = 4, 4, 32
SHORTEST, LONGEST = 60, 140
"""Tokens of a prompt."""


def measure(rounds: int) -> list[Figure]:
    """In bf16, against a model whose weights are bf16 (autocast would cast them at every token), and in float32."""
    model = loaded()
    policy = model.policy.eval()
    prompts = [x for x in model.domain.encode(pairs(32)).contexts if SHORTEST <= len(x) <= LONGEST][:PROMPTS]
    assert len(prompts) == PROMPTS
    width = max(map(len, prompts))
    tokens, mask = torch.zeros(PROMPTS, width, dtype=torch.long), torch.zeros(PROMPTS, width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        tokens[i, width - len(prompt) :], mask[i, width - len(prompt) :] = prompt, 1

    def ours(name: str) -> Callable[[], object]:
        how = precision("bf16" if name == "bf16" else "fp32")

        def act() -> object:
            how.apply()
            with how.forward(CPU):
                return generate(
                    policy, prompts, stops=(), count=COUNT, limit=LIMIT, temperature=1.0, top_p=1.0, seed=0, batch=8192
                )

        return act

    def theirs(other: torch.nn.Module) -> Callable[[], object]:
        def act() -> object:
            torch.set_float32_matmul_precision("highest")
            with torch.no_grad():
                return other.generate(  # pyright: ignore[reportCallIssue]
                    tokens,
                    attention_mask=mask,
                    do_sample=True,
                    num_return_sequences=COUNT,
                    max_new_tokens=LIMIT,
                    min_new_tokens=LIMIT,
                    pad_token_id=0,
                )

        return act

    plain = copy.deepcopy(policy.plain_model)
    plain.set_attn_implementation("sdpa")
    with torch.autocast("cpu", torch.bfloat16):
        policy.follow(policy.scoring_path)
    contestants = {
        "generate, bf16": theirs(copy.deepcopy(plain).bfloat16()),
        "ours, bf16": ours("bf16"),
        "generate, fp32": theirs(plain),
        "ours, fp32": ours("fp32"),
    }
    seconds = in_turns(contestants, rounds)
    note = f"{PROMPTS * COUNT * LIMIT} tokens; prompts of {min(map(len, prompts))} to {width}"
    return [
        replace(
            ratio(
                seconds,
                f"generate, {name}",
                f"ours, {name}",
                f"sampling, K = {COUNT} for each of {PROMPTS} prompts, {name}, against `generate`",
                **wanted,
            ),
            note=note,
        )
        for name, wanted in (("bf16", {"at_least": 1.4, "stretch": 2.0}), ("fp32", {}))
    ]

"""What reading rows of one prompt as one saves on pairs made of several responses to each prompt: CPU seconds with and without,
taking turns in one process on one thread. Nothing is compared here with any other library.

    python benchmarks/merged.py [ROUNDS] [fp32 | bf16] [samples,graded]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

import data

from penchant.domains.base import Cost, Encoded
from penchant.domains.text.models import Loaded, load
from penchant.engine.batching import order
from penchant.feedback import open_source
from penchant.objectives import Pairs

BUDGET = 4096
PROMPTS = 16


def paired(lists: Sequence[tuple[Tensor, Sequence[tuple[Tensor, Tensor]]]]) -> Encoded:
    rows = [(x, pair) for x, pairs in lists for pair in pairs]
    return Encoded(Pairs, tuple(x for x, _ in rows), tuple(pair for _, pair in rows), tuple(range(1, len(rows) + 1)))


def samples(loaded: Loaded) -> Encoded:
    """All six pairs of four responses to each prompt, in the lengths of real answers: a prompt's own two and the next row's,
    cut where they would be too long."""
    rows = list(open_source(data.hh_harmless(), bad_rows="drop"))
    some = loaded.domain.encode([rows[i] for i in order(len(rows), 0, 0)[: 4 * PROMPTS]])
    found = []
    for i in range(0, 2 * PROMPTS, 2):
        four = some.responses[i] + tuple(y[:150] for y in some.responses[i + 1])
        found.append((some.contexts[i], [(four[w], four[l]) for w, l in combinations(range(4), 2)]))
    return paired(found)


def graded(loaded: Loaded) -> Encoded:
    """Every right solution of a list against every wrong one."""
    lists = loaded.domain.encode(list(open_source(data.gsm8k()[: 2 * PROMPTS], bad_rows="drop")))
    gains = lists.columns["gain"].split(lists.counts)
    found = []
    for x, ys, gain in zip(lists.contexts, lists.responses, gains, strict=True):
        pairs = [(ys[w], ys[l]) for w in range(len(ys)) for l in range(len(ys)) if gain[w] > gain[l]]
        found.append((x, pairs))
    return paired(found)


def main() -> None:
    given = [*sys.argv[1:], *["3", "bf16", "samples,graded"][len(sys.argv) - 1 :]]
    torch.set_num_threads(1)
    loaded = load("smollm2", max_length=512)
    policy, domain = loaded.policy, loaded.domain
    policy.train()

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=given[1] == "bf16")

    with autocast():
        print(policy.scoring_path, flush=True)

    def merged(rows: Encoded, gradient: bool) -> int:
        cost, read = domain.cost(policy, rows), 0
        for group in cost.micro_batches(BUDGET):
            said(lambda some: domain.score(policy, some).total, rows.select(group), gradient)
            read += sum({part: n for i in group for part, n in cost.parts[i].items()}.values())
        return read

    def each(rows: Encoded, gradient: bool) -> int:
        cost = Cost(domain.cost(policy, rows).sizes, padded=False)
        for group in cost.micro_batches(BUDGET):
            said(lambda some: policy(some.contexts, some.responses)["logp"].sum(-1), rows.select(group), gradient)
        return sum(cost.sizes)

    def said(score: Callable[[Encoded], Tensor], rows: Encoded, gradient: bool) -> None:
        with autocast(), torch.set_grad_enabled(gradient):
            total = score(rows)
        if gradient:
            policy.zero_grad()
            total.mean().backward()

    for kind in given[2].split(","):
        rows = {"samples": samples, "graded": graded}[kind](loaded)
        drawn = random.Random(0).sample(range(len(rows)), 16)
        asked = {
            "reference pass over all": (rows, False),
            "step on 16 shuffled": (rows.select(drawn), True),
            "step on 16 in order": (rows.select(range(16)), True),
        }
        for title, (some, gradient) in asked.items():
            seconds: dict[str, list[float]] = {"each": [], "merged": []}
            tokens = {}
            for k in range(int(given[0]) + 1):
                for name, way in (("each", each), ("merged", merged)):
                    started = time.process_time()
                    tokens[name] = way(some, gradient)
                    if k:  # the first round warms up
                        seconds[name].append(round(time.process_time() - started, 2))
            ratio = statistics.median(a / b for a, b in zip(seconds["each"], seconds["merged"], strict=True))
            line = {"rows": kind, "of": len(some), "what": title, "precision": given[1], "tokens": tokens}
            print(json.dumps({**line, "cpu_seconds": seconds, "each_over_merged": round(ratio, 2)}), flush=True)


if __name__ == "__main__":
    main()

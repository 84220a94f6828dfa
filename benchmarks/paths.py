"""What sharing prompts, packing and padding cost on real pairs: CPU seconds of forward and backward of one batch, the paths
taking turns in one process on one thread. Nothing is compared here with any other library.

    python benchmarks/paths.py [ROUNDS] [fp32 | bf16] [pairs | lists] [plain,padded,packed,tree]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

import data

from penchant.domains.base import Encoded
from penchant.domains.models import load
from penchant.domains.paths import ScoringPath
from penchant.engine.batching import order
from penchant.feedback import open_source
from penchant.objectives import Lists

ROWS = 8


def lists_of(pairs: Encoded) -> Encoded:
    """Every second prompt with four responses: its own and the next row's, cut where they would be too long."""
    some = range(0, len(pairs), 2)
    responses = tuple(pairs.responses[i] + tuple(y[:150] for y in pairs.responses[i + 1]) for i in some)
    gain = torch.zeros(4 * len(some))
    return Encoded(Lists, tuple(pairs.contexts[i] for i in some), responses, tuple(range(len(some))), {"gain": gain})


def main() -> None:
    given = [*sys.argv[1:], *["3", "bf16", "pairs", "plain,padded,packed,tree"][len(sys.argv) - 1 :]]
    rounds, precision, kind, names = given[0], given[1], given[2], given[3].split(",")
    torch.set_num_threads(1)
    loaded = load("smollm2", max_length=512)
    policy, domain = loaded.policy, loaded.domain
    policy.train()
    rows = list(open_source(data.hh_harmless(), bad_rows="drop"))
    some = domain.encode([rows[i] for i in order(len(rows), 0, 0)[: 2 * ROWS]]).select(range(ROWS))
    some = some if kind == "pairs" else lists_of(some)
    steps: dict[str, list[float]] = {}
    tokens: dict[str, int] = {}
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = policy.scoring_path
    print(f"{found}; probed in {time.process_time() - started:.1f} CPU seconds", flush=True)
    for k in range(int(rounds) + 1):  # the first round warms up, by the fastest path
        for name in names if k else names[-1:]:
            if name == "plain":
                policy.follow(ScoringPath("padded", "logits"))
            else:
                policy.follow(ScoringPath(name, found.head, found.scale, found.cap))  # pyright: ignore[reportArgumentType]
            policy.zero_grad()
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logp = domain.score(policy, some).total
            logp.mean().backward()
            if k:
                steps.setdefault(name, []).append(time.process_time() - started)
                print(f"round {k}, {name}: {steps[name][-1]:.2f}", file=sys.stderr, flush=True)
            cost = domain.cost(policy, some)
            padded = sum(some.counts) * (max(map(len, some.contexts)) + max(some.lengths) - 1)
            tokens[name] = padded if cost.padded else sum(cost.sizes)
    for name, seconds in steps.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(steps[names[0]], seconds, strict=True))
        line = {"path": name, "precision": precision, "rows": kind, "cpu_seconds": round(middle, 2), "tokens": tokens[name]}
        print(
            json.dumps({**line, f"{names[0]}_over_this": round(ratio, 2), "rounds": [round(x, 2) for x in seconds]}),
            flush=True,
        )


if __name__ == "__main__":
    main()

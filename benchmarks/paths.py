"""What sharing prompts, packing and padding cost on real pairs: CPU seconds of forward and backward of one batch, the paths
taking turns in one process on one thread. Nothing is compared here with any other library.

    python benchmarks/paths.py [ROUNDS] [fp32 | bf16] [pairs | lists]
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
    rounds, precision, kind = [*sys.argv[1:], *["3", "bf16", "pairs"][len(sys.argv) - 1 :]]
    torch.set_num_threads(1)
    loaded = load("smollm2", max_length=512)
    policy, domain = loaded.policy, loaded.domain
    policy.train()
    rows = list(open_source(data.hh_harmless(), bad_rows="drop"))
    some = domain.encode([rows[i] for i in order(len(rows), 0, 0)[: 2 * ROWS]]).select(range(ROWS))
    some = some if kind == "pairs" else lists_of(some)
    steps: dict[str, list[float]] = {}
    tokens: dict[str, int] = {}
    paths = {"plain": None, "padded": "padded", "packed": "packed", "tree": "tree"}
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        found = policy.scoring_path
    print(found, file=sys.stderr)
    for k in range(int(rounds) + 1):  # the first round warms up
        for name, path in paths.items():
            if path is not None:
                policy.follow(ScoringPath(path, found.head, found.scale, found.cap))  # pyright: ignore[reportArgumentType]
            else:
                policy.follow(ScoringPath("padded", "logits"))
            policy.zero_grad()
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logp = domain.score(policy, some).total
            logp.mean().backward()
            if k:
                steps.setdefault(name, []).append(time.process_time() - started)
            cost = domain.cost(policy, some)
            padded = sum(some.counts) * (max(map(len, some.contexts)) + max(some.lengths) - 1)
            tokens[name] = padded if cost.padded else sum(cost.sizes)
    for name, seconds in steps.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(steps["plain"], seconds, strict=True))
        line = {"path": name, "precision": precision, "rows": kind, "cpu_seconds": round(middle, 2), "tokens": tokens[name]}
        print(
            json.dumps({**line, "plain_over_this": round(ratio, 2), "rounds": [round(x, 2) for x in seconds]}), flush=True
        )


if __name__ == "__main__":
    main()

"""Whether the way of the data grows evenly: reading and checking a file, its index, splitting it by prompt, encoding. Rows are
real pairs with a number put before their prompts, so that all differ, cut to a length at which 100,000 are soon read."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from figures import Figure
from workload import loaded, pairs

from penchant.feedback import open_source, split

SIZES = (1_000, 10_000, 100_000)
REAL, LONGEST = 256, 120


def measure(rounds: int) -> list[Figure]:
    """Milliseconds a pair with the packaged model's own tokenizer. One round: the last size alone takes minutes."""
    domain = loaded().domain
    took: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        for size in SIZES:
            file = Path(folder) / f"{size}.jsonl"
            file.write_text("".join(lines(size)), encoding="utf-8")
            started = time.process_time()
            source = open_source(file)
            train, held = split(source, 0.1, 0)
            read = time.process_time() - started
            kept = sum(len(domain.encode(source.rows(part))) for part in (train, held))
            whole = time.process_time() - started
            assert kept >= 0.99 * size, "rows were lost"
            took[size] = (1000 * read / size, 1000 * whole / size)
            print(f"  {size:,} pairs: {took[size][0]:.3g} ms a pair to read, {took[size][1]:.3g} with encoding", flush=True)
    first = took[SIZES[0]][1]
    figures = [
        Figure(
            f"data path, {size:,} pairs: time a pair",
            whole,
            "CPU ms",
            ours=read,
            sides="CPU ms to read, check, index and split",
            note="with the packaged model's own tokenizer",
        )
        for size, (read, whole) in took.items()
    ]
    last = took[SIZES[-1]][1] / first
    return [*figures, Figure(f"growth: time a pair at {SIZES[-1]:,} pairs over {SIZES[0]:,}", last, at_most=1.2)]


def lines(size: int) -> list[str]:
    """Rows as a file holds them."""
    rows = pairs(REAL)
    made = []
    for i in range(size):
        row = rows[i % REAL]
        said = row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]
        answers = [f"{answer[:LONGEST]} {'yes' if k else 'no'}" for k, answer in enumerate(row.responses)]
        made.append(json.dumps({"prompt": f"{i}. {said[:LONGEST]}", "chosen": answers[0], "rejected": answers[1]}) + "\n")
    return made

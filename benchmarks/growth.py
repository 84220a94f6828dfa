"""Whether the way of the data grows evenly: reading and checking a file, its index, splitting it by prompt, encoding. Rows are
real pairs with a number put before their prompts, so that all differ, cut to a length at which 100,000 are soon read."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from figures import Figure
from workload import loaded, pairs

from penchant.feedback import open_source, split
from penchant.feedback.records import Row

SIZES = (1_000, 10_000, 100_000)
REAL, LONGEST = 256, 120
BETWEEN = 10
"""How often the smallest size is encoded once more while the others are: what slows the machine then slows both."""


@dataclass
class Watch:
    """CPU seconds of one size and, taken in turns with it, of the smallest."""

    control: Callable[[], object]
    beside: list[float] = field(default_factory=list)

    def past(self, rows: Iterable[Row], size: int) -> Iterator[Row]:
        """The rows, with the control between them."""
        for i, row in enumerate(rows):
            if i % (size // BETWEEN) == 0:
                started = time.process_time()
                self.control()
                self.beside.append(time.process_time() - started)
            yield row


def measure(rounds: int) -> list[Figure]:
    """Milliseconds a pair with the packaged model's own tokenizer. One round: the last size alone takes minutes."""
    domain = loaded().domain
    took: dict[int, tuple[float, float]] = {}
    grown = 1.0
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        small = Path(folder) / "small.jsonl"
        small.write_text("".join(lines(SIZES[0])), encoding="utf-8")
        few = open_source(small)
        for size in SIZES:
            file = Path(folder) / f"{size}.jsonl"
            file.write_text("".join(lines(size)), encoding="utf-8")
            started = time.process_time()
            source = open_source(file)
            train, held = split(source, 0.1, 0)
            read = time.process_time() - started
            watch = Watch(lambda: domain.encode(few.rows(range(SIZES[0]))))
            every = (row for part in (train, held) for row in source.rows(part))
            started = time.process_time()
            encoded = domain.encode(watch.past(every, size))
            own = time.process_time() - started - sum(watch.beside)
            assert len(encoded) >= 0.99 * size, "rows were lost"
            took[size] = (1000 * read / size, 1000 * (read + own) / size)
            beside = 1000 * sum(watch.beside) / len(watch.beside) / SIZES[0]
            grown = took[size][1] / (beside + took[SIZES[0]][0])
            print(
                f"  {size:,} pairs: {took[size][0]:.3g} ms a pair to read, {took[size][1]:.3g} with encoding, "
                f"{grown:.3g}× that of {SIZES[0]:,} pairs encoded in between",
                flush=True,
            )
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
    name = f"growth: time a pair at {SIZES[-1]:,} pairs over {SIZES[0]:,}"
    return [
        *figures,
        Figure(name, grown, at_most=1.2, note="the smaller size is encoded again between the larger one's rows"),
    ]


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

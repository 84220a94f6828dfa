"""`penchant check`: what is in a file of preferences and what is wrong with it, before anything is trained.
The looking is done in penchant.feedback and, with --deep, in penchant.evaluation.diagnosis; this only asks and prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penchant.errors import Refusal
from penchant.words import json_text, plain

if TYPE_CHECKING:
    from penchant.evaluation.diagnosis import Diagnosis

SUMMARY = "say what is in a data file and what is wrong with it"

USAGE = (
    "penchant check DATA [--model MODEL] [--deep [--unseen DATA] [--judge JUDGE] [--report FILE] [--show N] [--seed N]] "
    "[--json]"
)

EXAMPLES = """\
examples:
  penchant check pairs.jsonl
  penchant check pairs.jsonl --model smollm2
  penchant check pairs.parquet --json
  penchant check pairs.jsonl --deep
  penchant check pairs.jsonl --deep --unseen test.jsonl --report diagnosis.html
  penchant check pairs.jsonl --deep --judge implicit:runs/other --show 5

It looks at every row and changes nothing. `wrong` is what a run would refuse (exit code 2), `odd` is worth a look. --deep also
estimates what single rows do not show: wrong labels, annotators who differ, shortcuts, leaks; it never changes the exit code."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a JSONL or Parquet file, or a hub id")
    parser.add_argument("--model", metavar="MODEL", help="also count tokens and try this model's template")
    parser.add_argument("--deep", action="store_true", help="also estimate wrong labels, shortcuts, leaks; say what fits")
    parser.add_argument("--unseen", metavar="DATA", help="with --deep: held-out data whose prompts should not be in DATA")
    parser.add_argument(
        "--judge",
        metavar="JUDGE",
        help="with --deep: a judge that has not seen these labels (reward:FOLDER, implicit:RUN, …), whose margins help to find "
        "wrong ones",
    )
    parser.add_argument("--report", metavar="FILE", help="with --deep: write a page with the figures and the doubtful rows")
    parser.add_argument("--show", metavar="N", type=int, default=0, help="with --deep: print the N most doubtful rows")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="with --deep: for all that is drawn (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from penchant.feedback import check, open_source

    for name in ("unseen", "judge", "report", "show", "seed"):
        if getattr(arguments, name) and not arguments.deep:
            raise Refusal(f"--{name} belongs to the deeper diagnosis; write --deep too.")
    if arguments.show < 0 or arguments.seed < 0:
        raise Refusal(f"--show {arguments.show}, --seed {arguments.seed}: neither is below 0.")
    source = open_source(arguments.data, bad_rows="drop")
    loaded = None
    if arguments.model is not None:
        from penchant.domains.text.models import load

        loaded = load(arguments.model)
    report = check(source, loaded.domain.encode if loaded is not None else None)
    found = _deeper(arguments, source, loaded) if arguments.deep else None
    if arguments.json:
        deeper = {} if found is None else {"deep": found.to_json()}
        print(json_text({**report.to_json(), **deeper}, indent=1))
    else:
        print("\n".join(report.lines()))
        if source.accounting.lost > len(source.accounting.examples):
            print(f"  … and {source.accounting.lost - len(source.accounting.examples):,} more.")
        if found is not None:
            print("\n".join(["", *found.lines(), *_shown(found, arguments.show)]))
    return 2 if report.wrong else 0


def _deeper(arguments: argparse.Namespace, source: Any, loaded: Any) -> Diagnosis:
    from penchant.evaluation.diagnosis import diagnose
    from penchant.feedback import open_source

    unseen = open_source(arguments.unseen, bad_rows="drop") if arguments.unseen is not None else None
    difficulty = None
    if loaded is not None:
        from penchant.running.difficulty import log_ratios

        difficulty = log_ratios(loaded)
    judge = None
    if arguments.judge is not None:
        from penchant.rewards import load_judge
        from penchant.running.difficulty import margins
        from penchant.running.judging import alone

        who = alone(load_judge(arguments.judge))
        judge = who.name, margins(who)
    found = diagnose(source, unseen, seed=arguments.seed, difficulty=difficulty, judge=judge)
    if arguments.report is not None:
        from penchant.files import write
        from penchant.report.diagnosis import render

        write(Path(arguments.report), render(found))
    return found


def _shown(found: Diagnosis, count: int) -> list[str]:
    """The most doubtful rows with their texts, which were asked for."""
    out = []
    for one in found.suspects[:count]:
        out.append(f"  row {one.row}, wrong with probability {min(one.doubt, 0.99):.2f}")
        texts = (
            ("prompt", one.comparison.prompt),
            ("chosen", one.comparison.chosen),
            ("rejected", one.comparison.rejected),
        )
        out += [f"    {name}: {plain(text, 300)}" for name, text in texts]
    return out

"""`penchant check`: what is in a file of preferences and what is wrong with it, before anything is trained.
The looking is done in penchant.feedback; this only asks and prints."""

from __future__ import annotations

import argparse

from penchant.words import json_text

SUMMARY = "say what is in a data file and what is wrong with it"

USAGE = "penchant check DATA [--model MODEL] [--json]"

EXAMPLES = """\
examples:
  penchant check pairs.jsonl
  penchant check pairs.jsonl --model smollm2
  penchant check pairs.parquet --json

It looks at every row and changes nothing. `wrong` is what a run would refuse (exit code 2), `odd` is worth a look."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a JSONL or Parquet file, or a hub id")
    parser.add_argument("--model", metavar="MODEL", help="also count tokens and try this model's template")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from penchant.feedback import check, open_source

    source = open_source(arguments.data, bad_rows="drop")
    encode = None
    if arguments.model is not None:
        from penchant.domains.models import load

        encode = load(arguments.model).domain.encode
    report = check(source, encode)
    if arguments.json:
        print(json_text(report.to_json(), indent=1))
    else:
        print("\n".join(report.lines()))
        if source.accounting.lost > len(source.accounting.examples):
            print(f"  … and {source.accounting.lost - len(source.accounting.examples):,} more.")
    return 2 if report.wrong else 0

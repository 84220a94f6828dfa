"""`penchant evaluate`: judges a finished run again from what it left, without its model, and writes verdict and report
anew. It trains and samples nothing."""

from __future__ import annotations

import argparse
import json

SUMMARY = "judge a finished run again and write its verdict and report anew"

USAGE = "penchant evaluate RUN [--no-samples] [--json]"

EXAMPLES = """\
examples:
  penchant evaluate runs/first
  penchant evaluate runs/first --no-samples
  penchant evaluate runs/first --json

It reads RUN/evidence.json and nothing else: no model is loaded. Exit code 1 where the verdict says it did not work."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the output folder of a run that has ended")
    parser.add_argument("--no-samples", action="store_true", help="leave texts of data and model out of the report")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from penchant.files import write, write_json
    from penchant.report.page import render
    from penchant.report.terminal import print_summary
    from penchant.run import Run

    judged = Run.open(arguments.run)
    shown = judged.evidence.settings.get("report_samples", True) and not arguments.no_samples
    write(judged.report, render(judged.evidence, judged.verdict, samples=shown))
    write_json(judged.folder / "verdict.json", judged.verdict.to_json())
    if arguments.json:
        print(json.dumps(judged.verdict.to_json(), ensure_ascii=False, indent=1))
    else:
        paths = {"model": judged.model, "report": judged.report, "pairs": judged.pairs}
        print_summary(Console(highlight=False), judged.evidence, judged.verdict, {k: v for k, v in paths.items() if v})
    return 0 if judged.verdict.ok else 1

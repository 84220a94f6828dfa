"""`penchant judge`: has answers judged by any judge, or by a person, and writes preferences that `penchant align` reads.
The judging is done in penchant.judging; this asks, writes and prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from penchant.errors import Refusal
from penchant.words import json_text, plain

if TYPE_CHECKING:
    from penchant.judging.answers import Answered

SUMMARY = "have answers judged, by a judge or by a person, into preferences"

USAGE = "penchant judge ANSWERS [OTHERS …] --judge JUDGE --output ROWS.jsonl"

EXAMPLES = """\
examples:
  penchant sample --model smollm2 --prompts prompts.jsonl --count 2 --json > answers.jsonl
  penchant judge answers.jsonl --judge "endpoint:http://127.0.0.1:8000/v1 model=NAME as=compare" --output rows.jsonl
  penchant judge new.jsonl old.jsonl --judge model:smollm2 --output rows.jsonl
  penchant judge a.jsonl b.jsonl c.jsonl --judge reward:FOLDER --output rows.jsonl
  penchant judge answers.jsonl --judge human --output votes.jsonl

ANSWERS are rows with two or more responses to a prompt: {"prompt", "responses"} as `penchant sample --json` prints them, pairs
or lists. With OTHERS the answers of several files to the same prompts are held against each other, and three or more are
rated. A judge of scores gives lists with scores, a comparer pairs with a strength, a person pairs. A key is read from
PENCHANT_JUDGE_KEY, else OPENAI_API_KEY."""

HUMAN = "human"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("answers", metavar="ANSWERS", help="a file of prompts with their answers")
    parser.add_argument("others", nargs="*", metavar="OTHERS", help="further files: whose answers are better?")
    parser.add_argument(
        "--judge",
        required=True,
        metavar="JUDGE",
        help="human; vader, rules, module:function; model:NAME; 'endpoint:URL model=NAME [as=compare] [rubric=FILE] "
        "[price=IN/OUT] …'",
    )
    parser.add_argument("--output", required=True, metavar="ROWS.jsonl", help="where the preferences are written")
    parser.add_argument("--overwrite", action="store_true", help="replace the output, unless it holds a person's votes")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")
    person = parser.add_argument_group("a person's votes")
    person.add_argument("--annotator", metavar="NAME", default=HUMAN, help="who votes (default: human)")
    person.add_argument("--seed", metavar="N", default="0", help="of the order and the sides (default: 0)")
    person.add_argument("--port", metavar="N", default="0", help="of the page on 127.0.0.1 (default: a free one)")


def run(arguments: argparse.Namespace) -> int:
    from penchant.judging.answers import joined, read_answers

    output = Path(arguments.output)
    numbers = [_whole(arguments, name) for name in ("seed", "port")]
    if not arguments.others:
        rows, notes = read_answers(arguments.answers), []
    else:
        rows, apart = joined(arguments.answers, *arguments.others)
        notes = [f"{apart:,} prompts stand in one of the files only, and were left out"] if apart else []
    if arguments.judge == HUMAN:
        return _human(rows, output, arguments.annotator, *numbers)
    if output.exists() and not arguments.overwrite:
        raise Refusal(f"{plain(output)} is there already; name another --output, or give --overwrite.")

    from penchant.feedback.writing import write_rows
    from penchant.judging.work import judge_answers
    from penchant.rewards import load_judge
    from penchant.running.judging import alone
    from penchant.running.voice import Voice

    judge = alone(load_judge(arguments.judge))
    with Voice(quiet=arguments.json) as voice:
        made = judge_answers(rows, judge, voice.progress)
    made.notes += notes
    written = write_rows(output, made.rows)
    if arguments.json:
        print(json_text({**made.to_json(), "rows": written}, indent=1))
    else:
        print("\n".join(map(plain, made.lines())))
        print(f"{written:,} rows in {plain(output)}")
    return 0


def _whole(arguments: argparse.Namespace, name: str) -> int:
    value = vars(arguments)[name]
    if not value.isascii() or not value.isdecimal() or int(value) > (65535 if name == "port" else 2**63):
        raise Refusal(f"--{name} {plain(value, 40)}: it must be a whole number of at least 0.")
    return int(value)


def _human(rows: list[Answered], output: Path, annotator: str, seed: int, port: int) -> int:
    from penchant.judging.answers import questions
    from penchant.judging.page import Page
    from penchant.judging.votes import Votes

    asked = questions(rows)
    if not asked:
        raise Refusal("no prompt has two different answers, so there is nothing to ask; sample with --count of at least 2.")
    if not annotator.strip():
        raise Refusal("--annotator is empty; give a name, so that votes can be told apart.")
    votes = Votes(output, asked, seed, annotator)
    if votes.dropped:
        print(f"the last line of {plain(output)} was cut off, and was dropped", file=sys.stderr)
    with Page(votes, port) as page:
        print(f"{votes.done:,} of {len(asked):,} answered. Open this page, and end with Ctrl-C:\n  {page.url}", flush=True)
        try:
            page.serve_forever(0.1)
        except KeyboardInterrupt:
            print()
    counts = votes.counts()
    print(
        f"{votes.done:,} of {len(asked):,} answered by {plain(annotator)}: left {counts['left']:,}, right {counts['right']:,}, "
        f"ties {counts['tie']:,}; in {plain(output)}"
    )
    return 0

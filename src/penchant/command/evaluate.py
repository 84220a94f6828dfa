"""`penchant evaluate`: judges a finished run again from what it left, or a model against the one it came from on a file
neither saw. The measuring and judging is done below."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from penchant.errors import Refusal
from penchant.words import json_text, plain

if TYPE_CHECKING:
    from penchant.engine.settings import Settings
    from penchant.evaluation.evidence import RunEvidence
    from penchant.evaluation.verdict import Verdict

SUMMARY = "judge a finished run again, or a model on unseen data"

USAGE = (
    "penchant evaluate RUN [--no-samples] | RUN --probes FILE | MODEL --reference MODEL --data DATA [settings] | "
    "MODEL --tasks TASKS | DATA --profile [--judge JUDGE]"
)

EXAMPLES = """\
examples:
  penchant evaluate runs/first
  penchant evaluate runs/first/model --reference smollm2 --data unseen.jsonl
  penchant evaluate runs/online/model --reference smollm2 --data prompts.jsonl --judge vader
  penchant evaluate runs/reward/model --reference smollm2 --data unseen.jsonl
  penchant evaluate pairs.jsonl --profile --judge vader
  penchant evaluate runs/first --probes builtin
  penchant evaluate runs/first/model --tasks arc_easy,hellaswag --reference smollm2

A run is judged from its evidence alone, without its model, and its verdict and report are written anew. Exit code 1 where
the verdict says it did not work."""

SETTINGS = (
    *("template", "max_length", "too_long", "bad_rows", "allow_bin"),
    *("sample_prompts", "sample_count", "limit", "temperature", "top_p"),
    *("seed", "tokens", "precision", "threads"),
)
"""The settings of a run that measuring shares."""


def add(parser: argparse.ArgumentParser) -> None:
    from penchant.command.flags import add_settings
    from penchant.command.recipe import ASKED
    from penchant.engine.settings import Settings

    parser.add_argument("what", metavar="RUN_OR_MODEL", help="a finished run's output folder, or a model")
    parser.add_argument("--no-samples", action="store_true", help="leave texts of data and model out of the report")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="say what the preferences of a file of pairs go with, and a judge's beside them",
    )
    drift = parser.add_argument_group("a run's checkpoints on what they stand for")
    drift.add_argument(
        "--probes",
        metavar="FILE",
        action="append",
        help="questions put to a run's start and to the checkpoints it kept, for value drift: builtin, a file of JSON Lines or "
        "a folder of them; may be given again",
    )
    drift.add_argument("--probe-rows", type=int, metavar="N", help="probes of each topic at most")
    model = parser.add_argument_group("a model on unseen data")
    model.add_argument("--reference", metavar="MODEL", help="the model it came from, to compare with")
    model.add_argument("--data", metavar="DATA", help="pairs, lists or prompts neither was trained on")
    model.add_argument(
        "--objective",
        metavar="OBJECTIVE",
        help="whose implicit reward is measured (default: DPO(beta=0.1), of a reward model BradleyTerry())",
    )
    model.add_argument("--judge", metavar="JUDGE", help=ASKED["judge"].rpartition(";")[0])
    bench = parser.add_argument_group("a model on standard benchmarks (pip install 'penchant[benchmarks]')")
    bench.add_argument("--tasks", metavar="TASKS", help="names of lm-eval's tasks, or task files, with commas between")
    bench.add_argument("--shots", type=int, metavar="N", help="worked examples before a question (default: the task's own)")
    bench.add_argument("--task-rows", type=int, metavar="N", help="rows of each task at most, to try something out")
    add_settings(parser, Settings, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    from penchant.command.flags import given
    from penchant.engine.settings import Settings

    modes = [name for name in ("profile", "tasks", "probes") if vars(arguments)[name]]
    if len(modes) > 1:
        raise Refusal(f"--{modes[0]} and --{modes[1]} ask for different things; give one of them.")
    if arguments.profile:
        from penchant.command.profiling import show

        other = [name for name in ("reference", "data", "objective") if vars(arguments)[name] is not None]
        if other:
            raise Refusal(f"--profile reads the file that is named first, with --judge or without; leave --{other[0]} out.")
        return show(arguments.what, arguments.judge, arguments.json)
    asked = {name: vars(arguments)[name] for name in ("reference", "data", "objective", "judge")}
    settings = Settings.of(given(arguments, Settings))
    if arguments.tasks is not None:
        return _tasks(arguments, settings)
    if arguments.probes is not None:
        return _probes(arguments, settings)
    if arguments.probe_rows is not None:
        raise Refusal("--probe-rows is of value drift: name the probes with --probes.")
    lost = [
        flag for flag, value in (("--shots", arguments.shots), ("--task-rows", arguments.task_rows)) if value is not None
    ]
    if lost:
        raise Refusal(f"{lost[0]} is of benchmarks: name them with --tasks.")
    if arguments.data is None:
        extra = [name for name, value in asked.items() if value is not None] + list(given(arguments, Settings))
        if extra:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in extra)
            raise Refusal(f"{flags} measures a model on data: give --data too, and --reference.")
        return _again(arguments)
    if arguments.reference is None:
        raise Refusal("--data measures a model against the one it came from: give --reference too.")
    if (Path(arguments.what) / "run.json").is_file():
        raise Refusal(f"{plain(arguments.what)} is a run; its model is {plain(Path(arguments.what) / 'model')}.")

    from penchant.objectives.reader import read
    from penchant.rewards import load_judge
    from penchant.running.evaluate import evaluate
    from penchant.running.voice import Voice

    judge = load_judge(asked["judge"]) if asked["judge"] else None
    objective = read(asked["objective"] or ("BradleyTerry()" if _scores(arguments.what) else "DPO(beta=0.1)"))
    voice = Voice(quiet=arguments.json)
    with voice:
        evidence, verdict = evaluate(arguments.what, arguments.reference, arguments.data, objective, judge, settings, voice)
    return _show(evidence, verdict, {}, arguments.json)


def _scores(model: str) -> bool:
    """Whether a folder holds a reward model."""
    from penchant.domains.text.reward_head import is_adapter_of_classifier, is_classifier

    return is_classifier(Path(model)) or is_adapter_of_classifier(Path(model))


def _tasks(arguments: argparse.Namespace, settings: Settings) -> int:
    """A model on benchmarks."""
    from penchant.command import benchmarks
    from penchant.command.flags import given
    from penchant.engine.settings import Settings

    asked = [name for name in ("data", "objective", "judge") if vars(arguments)[name] is not None]
    other = asked + [name for name in given(arguments, Settings) if name not in benchmarks.SETTINGS]
    if other:
        raise Refusal(f"--tasks measures a model by lm-eval's own rules; leave --{other[0].replace('_', '-')} out.")
    if (Path(arguments.what) / "run.json").is_file():
        raise Refusal(f"{plain(arguments.what)} is a run; its model is {plain(Path(arguments.what) / 'model')}.")
    return benchmarks.show(
        arguments.what, arguments.tasks, arguments.reference, settings, arguments.shots, arguments.task_rows, arguments.json
    )


def _probes(arguments: argparse.Namespace, settings: Settings) -> int:
    """The value drift of a run."""
    from penchant.command import drifting
    from penchant.command.flags import given
    from penchant.engine.settings import Settings

    asked = [name for name in ("reference", "data", "objective", "judge") if vars(arguments)[name] is not None]
    other = asked + [name for name in given(arguments, Settings) if name not in drifting.SETTINGS]
    if other:
        raise Refusal(
            f"--probes asks a run's checkpoints as that run reads text; leave --{other[0].replace('_', '-')} out."
        )
    samples = not arguments.no_samples
    return drifting.show(arguments.what, arguments.probes, arguments.probe_rows, settings, samples, arguments.json)


def _again(arguments: argparse.Namespace) -> int:
    """A finished run, judged from its evidence."""
    from penchant.run import Run

    judged = Run.open(arguments.what)
    from penchant.files import write, write_json
    from penchant.report.page import render

    shown = judged.evidence.settings.get("report_samples", True) and not arguments.no_samples
    write(judged.report, render(judged.evidence, judged.verdict, samples=shown))
    write_json(judged.folder / "verdict.json", judged.verdict.to_json())
    return _show(judged.evidence, judged.verdict, judged.left, arguments.json)


def _show(evidence: RunEvidence, verdict: Verdict, paths: dict[str, Path], as_json: bool) -> int:
    if as_json:
        print(json_text(verdict.to_json(), indent=1))
    else:
        from rich.console import Console

        from penchant.report.terminal import print_summary

        print_summary(Console(highlight=False), evidence, verdict, paths)
    return 0 if verdict.ok else 1

"""`penchant sample`: what a model answers, to look at before and after aligning it.
It samples as a run does, through the same template and the same function."""

from __future__ import annotations

import argparse

from penchant.errors import Refusal
from penchant.words import json_text, plain

SUMMARY = "let a model answer prompts"

USAGE = "penchant sample --model MODEL (--prompt TEXT | --prompts FILE) [settings]"

EXAMPLES = """\
examples:
  penchant sample --model smollm2 --prompt "How was your day?"
  penchant sample --model runs/first/model --prompts prompts.jsonl --count 4 --json > answers.jsonl
  penchant sample --model smollm2 --prompt "What is the capital of France?" --greedy
  penchant sample --model runs/goals/model --prompt "What is tea?" --goal 10"""

SETTINGS = ("limit", "temperature", "top_p", "seed", "template", "revision", "allow_bin")
"""The settings of a run that sampling shares."""


def add(parser: argparse.ArgumentParser) -> None:
    from penchant.command.flags import add_settings
    from penchant.engine.settings import Settings

    parser.add_argument("--model", required=True, metavar="MODEL", help="a folder, a hub id, or smollm2")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", metavar="TEXT", help="one prompt")
    asked.add_argument("--prompts", metavar="FILE", help="a file of rows with prompts, in any format that is read")
    parser.add_argument("--count", metavar="N", default="1", help="answers to each prompt (default: 1)")
    parser.add_argument("--greedy", action="store_true", help="take the likeliest token each time, at any temperature")
    parser.add_argument("--goal", metavar="X", help="the score to ask for, of a model that was trained with --goals")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line: prompt, responses")
    add_settings(parser, Settings, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    from penchant.command.flags import given
    from penchant.engine.settings import Settings

    if not arguments.count.isdecimal() or int(arguments.count) < 1:
        raise Refusal(f"--count {plain(arguments.count, 40)}: it must be a whole number of at least 1.")
    settings = Settings.of(given(arguments, Settings))
    try:
        goal = None if arguments.goal is None else float(arguments.goal)
    except ValueError:
        raise Refusal(f"--goal {plain(arguments.goal, 40)}: it must be a number.") from None

    from penchant.domains.text.models import load
    from penchant.feedback import open_source

    prompts = [arguments.prompt] if arguments.prompt is not None else [row.prompt for row in open_source(arguments.prompts)]
    loaded = load(arguments.model, revision=settings.revision, allow_bin=settings.allow_bin, template=settings.template)
    samples = loaded.domain.sample(
        loaded.policy,
        prompts,
        count=int(arguments.count),
        limit=settings.limit,
        temperature=0.0 if arguments.greedy else settings.temperature,
        top_p=settings.top_p,
        seed=settings.seed,
        goal=goal,
    )
    for prompt, texts in zip(prompts, samples.texts, strict=True):
        if arguments.json:
            print(json_text({"prompt": prompt, "responses": list(texts)}))
            continue
        print(f"> {plain(prompt if isinstance(prompt, str) else prompt[-1]['content'])}")
        for text in texts:
            print(f"{plain(text)}\n")
    return 0

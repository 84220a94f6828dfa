"""`penchant align`: gathers what was asked from a recipe and from flags, and hands it to `penchant.align`.
Whatever can be wrong with it is said there; nothing is trained here."""

from __future__ import annotations

import argparse
import sys

SUMMARY = "align a model with preferences, from a file or by sampling and judging; resumes by itself"

USAGE = "penchant align [RECIPE.yaml] --model MODEL --data DATA --objective OBJECTIVE --output DIR [settings]"

EXAMPLES = """\
examples:
  penchant align --model smollm2 --data pairs.jsonl --objective "DPO(beta=0.1)" --output runs/first
  penchant align --model ./my-model --data pairs.jsonl --objective "SimPO() + 0.1 * NLL()" --lora 16 --output runs/lora
  penchant align --model smollm2 --data prompts.jsonl --judge vader --rounds 5 --objective "DPO()" --output runs/online
  penchant align diffusion-demo --output runs/pictures
  penchant align policy-demo --output runs/policy

a recipe file holds the same names, one `name: value` a line, and flags given with it win; diffusion-demo and
policy-demo come with penchant, of a small model of pictures and a small policy in a simulator:
  penchant align recipe.yaml --learning-rate 2e-5

data rows are {"prompt", "chosen", "rejected"}, {"prompt", "responses", "scores"}, {"prompt", "completion", "label"} or,
with --judge and --rounds, {"prompt"} alone; texts may be strings or chat messages.
The same command again goes on from the last checkpoint. `penchant methods` lists the objectives."""


def add(parser: argparse.ArgumentParser) -> None:
    from penchant.command.flags import add_settings
    from penchant.command.recipe import ASKED
    from penchant.engine.settings import Settings

    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE.yaml",
        help="a file with any of the names below, or a recipe's own name: diffusion-demo, policy-demo",
    )
    asked = parser.add_argument_group("what to do")
    for name, said in ASKED.items():
        asked.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar=name.upper(), help=said)
    add_settings(parser, Settings)
    parser.add_argument(
        "--no-samples",
        dest="report_samples",
        action="store_false",
        default=argparse.SUPPRESS,
        help="leave texts of data and model out of the report and the evidence: --no-report-samples in short",
    )


def run(arguments: argparse.Namespace) -> int:
    from penchant.command.flags import given
    from penchant.command.recipe import ASKED, found, merge, read_recipe
    from penchant.engine.settings import Settings

    flags = {name: vars(arguments)[name] for name in ASKED if name in vars(arguments)} | given(arguments, Settings)
    path = found(arguments.recipe) if arguments.recipe else None
    recipe = read_recipe(path, Settings.model_fields) if path else {}
    asked, said = merge(recipe, flags, path)
    settings = {name: value for name, value in asked.items() if name not in ASKED}
    Settings.of(settings)  # refused now, before torch is loaded
    for line in said:
        print(line, file=sys.stderr)

    from penchant.run import align

    finished = align(
        asked["model"],
        asked["data"],
        asked["objective"],
        output=asked["output"],
        judge=asked.get("judge"),
        guard=asked.get("guard"),
        unseen=asked.get("unseen"),
        **settings,
    )
    if finished.interrupted:
        print("penchant: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0 if finished.verdict.ok else 1

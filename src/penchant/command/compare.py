"""`penchant compare`: gathers what is to be compared from flags and hands it to `penchant.compare`. Whatever can be wrong with it
is said before anything is trained."""

from __future__ import annotations

import argparse

from penchant.errors import Refusal
from penchant.words import plain

SUMMARY = "train several objectives alike, several seeds each, and say which is better, how surely and at what price"

USAGE = "penchant compare --model MODEL --data DATA --objective A --objective B … --output DIR [--seeds 3] [settings]"

EXAMPLES = """\
examples:
  penchant compare --model smollm2 --data pairs.jsonl --objective "DPO()" --objective "SimPO()" --output runs/two
  penchant compare --model smollm2 --data pairs.jsonl --objective "DPO()" --objective "LNDPO()" \\
    --grid "DPO.beta=0.01,0.05,0.1" --grid "LNDPO.beta=1,2,5" --judge vader --train top:6 --output runs/grid

Each objective, at each point of its grid, is trained with every seed on the same rows in as many steps; each such run is a
process and an ordinary run folder of its own. The same command again goes on where it stopped, and with more objectives or
seeds it adds them. Exit code 1 where a run did not finish; the others are compared all the same."""

APART = ("overwrite", "trackers", "split_seed")
"""Settings of a single run that a comparison decides itself."""


def add(parser: argparse.ArgumentParser) -> None:
    from penchant.command.flags import add_settings
    from penchant.command.recipe import ASKED
    from penchant.engine.settings import Settings
    from penchant.evaluation.rules import BY

    asked = parser.add_argument_group("what to compare")
    for name in ("model", "data", "output"):
        said = ASKED[name].replace("the run lives", "the comparison lives")
        asked.add_argument(f"--{name}", required=True, metavar=name.upper(), help=said)
    asked.add_argument(
        "--objective", action="append", required=True, metavar="OBJECTIVE", help="one to train; again for more"
    )
    asked.add_argument(
        "--seeds", metavar="N", default="3", help="runs of each, --seed and the numbers after it (default: 3)"
    )
    asked.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help='values of a field, "beta=0.05,0.1", of one method\'s, "SimPO.beta=2,5", or of learning_rate, weight_decay, '
        "warmup, clip; again for more axes",
    )
    asked.add_argument("--judge", metavar="JUDGE", help=ASKED["judge"].partition("; needed")[0])
    asked.add_argument("--unseen", metavar="DATA", help="rows to judge all runs on, such as another data set's prompts")
    asked.add_argument(
        "--by",
        choices=BY,
        help="what the winner is named by (default: the judge's score; without a judge the accuracy on unseen pairs, or that of "
        "the change where objectives begin with different ones)",
    )
    asked.add_argument("--at-once", metavar="N", help="runs at the same time (default: as cores, GPUs and memory allow)")
    asked.add_argument(
        "--models", action=argparse.BooleanOptionalAction, default=True, help="whether finished runs keep their weights"
    )
    add_settings(parser, Settings, [name for name in Settings.model_fields if name not in APART])


def run(arguments: argparse.Namespace) -> int:
    from penchant.command.flags import given
    from penchant.engine.settings import Settings

    settings = given(arguments, Settings)
    Settings.of(settings)  # refused now, before torch is loaded
    seeds = _whole("--seeds", arguments.seeds)
    at_once = None if arguments.at_once is None else _whole("--at-once", arguments.at_once)

    from penchant.run import compare
    from penchant.running.grid import read_grid

    found = compare(
        arguments.model,
        arguments.data,
        arguments.objective,
        output=arguments.output,
        seeds=seeds,
        grid=read_grid(arguments.grid),
        judge=arguments.judge,
        unseen=arguments.unseen,
        by=arguments.by,
        at_once=at_once,
        models=arguments.models,
        **settings,
    )
    return 1 if found.failures else 0


def _whole(flag: str, said: str) -> int:
    if not said.isdecimal() or int(said) < 1:
        raise Refusal(f"{flag} {plain(said, 40)}: it must be a whole number of at least 1.")
    return int(said)

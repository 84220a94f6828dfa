"""The demo: a 135M language model learns to sound positive from its own answers, first freely, then held in check.

Claim     On-policy DPO against a judge raises the judge's score on prompts never trained on; pushed freely it buys the score by
          collapse, and the verdict says so; the same run with bounded margins keeps its diversity.
Source    Method: Rafailov et al. 2023, arXiv 2305.18290. Held in check by cDPO, whose loss is least at a margin of
          log((1 − flip) / flip) / beta nats, 7.3 here, where DPO's has no end. Judge: VADER, Hutto and Gilbert 2014. Model:
          SmolLM2-135M-Instruct, as packaged.
Run       36 prompts, 12 unseen ones on other topics; 6 rounds of 16 prompts with 4 answers of 16 tokens, best against worst,
          8 steps of 2 pairs; LoRA of rank 16 on the upper 12 layers. Twice.
Showed    240 seconds on two cores (about 366 CPU-seconds, `make`'s own included). Judge's score 0.16 before, 0.92 free, 0.59
          held; distinct-2 0.88, 0.34, 0.68; KL 10.7 and 3.9 nats a response; verdicts "collapsed" and "learned". At twice this
          learning rate, held constant, the free run ended in "great great great", and a larger beta alone did not hold it.

    make demo
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import penchant as pn
from penchant.evaluation.verdict import before_after
from penchant.rollouts.prompts import demo_prompts
from penchant.run import Run

ACTS = {
    "free": ("Act one: nothing holds the model but DPO's beta.", "DPO(beta=0.1)"),
    "held": (
        "Act two: the same run, with margins bounded by label smoothing and a stronger beta.",
        "CDPO(beta=0.3, flip=0.1)",
    ),
}
UPPER = r".*layers\.(1[89]|2\d)\..*proj"
"""The projections of layers 18 to 29: below them nothing trains, so nothing is differentiated there either."""


def act(objective: str, output: Path) -> Run:
    """One on-policy run; asked again, it goes on where it stopped."""
    trained, unseen = demo_prompts()
    return pn.align(
        "smollm2",
        [{"prompt": context.prompt} for context in trained],
        objective,
        output=output,
        judge="vader",
        unseen=[{"prompt": context.prompt} for context in unseen],
        rounds=6,
        prompts_per_round=16,
        samples=4,
        limit=16,
        temperature=0.8,
        batch=2,
        lora=16,
        lora_targets=UPPER,
        learning_rate=1e-3,
        sample_prompts=12,
        sample_count=2,
        save_every=0,
    )


def side_by_side(runs: dict[str, Run]) -> None:
    """The two acts in one table."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title="on unseen prompts", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    for name in runs:
        table.add_column(name, justify="right")
    rows = {name: {row.name: row.cells for row in before_after(run.evidence)} for name, run in runs.items()}
    first = next(iter(rows.values()))
    for name, cells in first.items():
        if all(name in found for found in rows.values()):
            table.add_row(name, cells[0], *(found[name][1] for found in rows.values()))
    table.add_row("verdict", "", *(run.verdict.word for run in runs.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="where the two runs go (default: runs/demo)")
    output: Path = parser.parse_args().output
    started = time.perf_counter()
    runs = {}
    for name, (said, objective) in ACTS.items():
        print(f"\n{said}  {objective}\n")
        runs[name] = act(objective, output / name)
    print("\nBoth acts side by side\n")
    side_by_side(runs)
    pairs = runs["held"].pairs
    print(f"\n{time.perf_counter() - started:.0f} seconds. The two reports to open:")
    for run in runs.values():
        print(f"  {run.report}")
    print(
        "\nThe preferences these runs made are a file now. To align from it:\n"
        f'  penchant align --model smollm2 --data {pairs} --objective "DPO(beta=0.1)" \\\n'
        "    --learning-rate 2e-5 --batch 8 --epochs 3 --held-out 0.3 --output runs/from-file\n"
    )


if __name__ == "__main__":
    main()

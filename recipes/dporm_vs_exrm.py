"""Two reward models of the same pairs: the one that DPO implies (DPORM) and an explicit one (EXRM), tested where the pairs are not
like those they learned from.

Claim     DPO's implicit reward model fits its training distribution as well as an explicit one, but generalises worse: over five
          shifted settings its accuracy was lower by 3 points on average and by 7 at most.
Source    Lin et al. 2024, arXiv 2409.03650, abstract (models of 2B to 7B). That reading surface tokens is why: Razin et al. 2025,
          arXiv 2507.07981, whose shifts by paraphrase are the model of ours.
Run       SmolLM2-135M-Instruct, its top 4 layers (EXRM: and a head of zeros), the same pairs in the same order for both, 1 epoch,
          batch 8. Two sources: replies from templates, polite against rude (96 pairs); statements
          of persona evaluations, agreeable against not (160 pairs). Learning rate from {1e-4, 3e-4} for each of the two
          by accuracy on validation pairs of the same distribution, seed 0 alone. Test pairs of the same distribution, and shifted:
          other tasks, other templates, both, longer replies; other questions, reported speech, another trait; and pairs of people
          (HH harmless). 3 seeds, which draw and order the training pairs. Budget: 10 CPU-minutes
          (measured: 466 s for both).
Showed    Both put about all pairs of their own distribution in order (templates: EXRM 0.97 [0.90, 1.04], DPORM 1.00; persona
          0.97 and 0.98). The mean drop on shifted pairs is larger for DPORM: by +0.09 [+0.06, +0.12] (templates) and +0.03
          [+0.03, +0.04] (persona). It comes from the wording, as the second source says: other templates −0.27
          [−0.52, −0.02], other templates and tasks −0.25 [−0.38, −0.13], another trait −0.11 [−0.14, −0.07]. Other tasks alone,
          other questions and reported speech do not separate the two; on longer replies DPORM is better, +0.13
          [+0.004, +0.26]. Neither knows what people prefer in other pairs (0.40 to 0.50). The worst drop does not separate
          them. The rates chosen were 3e-4 for EXRM and 1e-4 for DPORM.

    python recipes/dporm_vs_exrm.py                       both sources
    python recipes/dporm_vs_exrm.py --source templates
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import data
import torch
from short_runs import Bench, bare
from study import Study, study

from penchant.domains.base import Encoded
from penchant.evaluation.rewards import length_matched, reward_accuracy
from penchant.objectives import DPO, BradleyTerry, Objective, Pairs

ARMS: dict[str, Objective] = {"EXRM": BradleyTerry(), "DPORM": DPO(beta=0.1)}
RATES = (1e-4, 3e-4)
SEEDS = (0, 1, 2)
HERE = Path("runs/dporm_vs_exrm")

TASKS = (
    ["Write a note about {}.", "Give me a tip on {}.", "What should I know about {}?", "Help me with {}."],
    ["Could you plan something with {} for me?", "I need a word of advice: {}.", "Explain {} to a child, please."],
)
THINGS = (
    ["cooking rice", "a used bicycle", "my garden", "old photographs", "train tickets", "a leaking tap", "spelling", "tea",
     "house plants", "a birthday", "winter coats", "saving money", "sleeping better", "a small kitchen", "packing", "bees"],
    ["a chess club", "the tax form", "my new puppy", "stargazing", "a broken phone", "learning Welsh", "a road trip", "clay pots",
     "moving house", "a job interview", "first aid", "choir practice"],
)  # fmt: skip
POLITE = (
    ["Certainly, I would be glad to help. {}", "Thank you for asking! {}", "Of course, with pleasure. {}",
     "What a lovely question. {} I hope this helps.", "{} Please tell me if you would like more.", "Happy to help! {}"],
    ["It is my delight to assist you. {}", "How kind of you to turn to me. {}", "{} Do let me know how it goes, won't you?",
     "Gladly, dear friend. {}", "{} Wishing you the very best with it.", "You are most welcome. {}"],
)  # fmt: skip
RUDE = (
    ["Ugh, not this again. {}", "Are you stupid? {}", "Stop wasting my time. {}", "{} Now leave me alone.",
     "Everybody knows this, you fool. {}", "What a dumb question. {}"],
    ["Only an idiot would come to me with that. {}", "{} Get lost.", "How pathetic that you can't manage alone. {}",
     "Oh great, another moron. {}", "{} Don't bother me any more.", "I am sick of people like you. {}"],
)  # fmt: skip
BODIES = [
    "Start small and look at what you have.", "Take ten minutes and make a list.", "Ask somebody who has done it before.",
    "There are three parts, and the first is the longest.", "Begin in the morning.", "Keep it simple and dry.",
    "Most people need two tries.", "Compare two or three offers.", "A little every day is enough.", "Write down what you find.",
]  # fmt: skip

Split = dict[str, data.Rows]
"""Test pairs by name: "ID" and the shifted sets."""
Source = Literal["templates", "persona"]


def replies(
    count: int, make: random.Random, task: int = 0, wording: int = 0, sentences: tuple[int, int] = (1, 2)
) -> data.Rows:
    """Polite against rude, with the same matter in both: what is preferred is the manner alone."""
    rows = []
    for _ in range(count):
        prompt = make.choice(TASKS[task]).format(make.choice(THINGS[task]))
        said = lambda side: side[wording][make.randrange(len(side[wording]))].format(  # noqa: E731
            " ".join(make.sample(BODIES, make.randint(*sentences)))
        )
        rows.append({"prompt": prompt, "chosen": said(POLITE), "rejected": said(RUDE)})
    return rows


def templates(train: int = 160, test: int = 80) -> tuple[data.Rows, data.Rows, Split]:
    """Pairs to draw training pairs from, validation pairs, test pairs."""
    make = random.Random(0)
    split = {
        "ID": replies(test, make),
        "tasks": replies(test, make, task=1),
        "wording": replies(test, make, wording=1),
        "tasks and wording": replies(test, make, task=1, wording=1),
        "length": replies(test, make, sentences=(4, 6)),
        "people": short(data.hh_harmless(), test, make),
    }
    return replies(2 * train, make), replies(60, make), split


def persona(train: int = 240, test: int = 80) -> tuple[data.Rows, data.Rows, Split]:
    """The same of statements: agreeable against not, in answer to a question about oneself."""
    make = random.Random(0)
    rows = data.persona()
    make.shuffle(rows)
    held, rest = rows[: test + 60], rows[test + 60 :]
    reported = lambda row: {**row, **{k: f'Somebody told me: "{row[k]}"' for k in ("chosen", "rejected")}}  # noqa: E731
    asked = lambda row: {**row, "prompt": "Describe a person whom you would like to meet."}  # noqa: E731
    other = [
        {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
        for row in data.persona("psychopathy")
    ]
    split = {
        "ID": held[:test],
        "question": [asked(row) | {"prompt": f"{asked(row)['prompt']} ({i})"} for i, row in enumerate(held[:test])],
        "reported": [reported(row) for row in held[:test]],
        "trait": make.sample(other, test),
        "people": short(data.hh_harmless(), test, make),
    }
    return rest[: max(train, len(rest))], held[test:], split


SOURCES: dict[Source, Any] = {"templates": (templates, 96), "persona": (persona, 160)}


def short(rows: data.Rows, count: int, make: random.Random, most: int = 260) -> data.Rows:
    """Rows of few characters, so that they fit."""
    size = lambda row: max(len(str(row[k])) for k in ("chosen", "rejected"))  # noqa: E731
    return make.sample([row for row in rows if size(row) <= most], count)


@dataclass(frozen=True)
class Contest:
    """Both kinds of reward model on one source."""

    benches: Mapping[str, Bench]
    train: Mapping[str, Encoded]
    validation: Mapping[str, Encoded]
    tests: Mapping[str, Mapping[str, Encoded]]
    size: int
    """Pairs of a training set."""

    @classmethod
    def of(cls, source: Source, model: str = "smollm2", layers: int = 4, size: int | None = None) -> Contest:
        make, usual = SOURCES[source]
        rows, validation, split = make()
        benches = {
            "EXRM": Bench(model, layers=layers, max_length=160, head="reward"),
            "DPORM": Bench(model, layers=layers, max_length=160),
        }
        read = lambda some: {arm: bench.encode([_bare(row) for row in some]) for arm, bench in benches.items()}  # noqa: E731
        tests = {name: read(some) for name, some in split.items()}
        found = read(rows)
        if found["EXRM"].keys != found["DPORM"].keys:
            raise RuntimeError("the two were not given the same pairs in the same order.")
        return cls(benches, found, read(validation), tests, size or usual)

    def fit(self, arm: str, rate: float, seed: int) -> Bench:
        """The arm trained on the seed's pairs."""
        rows = self.train[arm]
        some = sorted(random.Random(seed).sample(range(len(rows)), min(self.size, len(rows))))
        self.benches[arm].train(ARMS[arm], rows.select(some), batch=8, learning_rate=rate, seed=seed)
        return self.benches[arm]

    def rate(self, arm: str) -> float:
        """The learning rate by pairs of the training distribution alone; of equal ones the smallest."""
        return max(RATES, key=lambda rate: (right(arm, self.fit(arm, rate, 0), self.validation[arm])["half"], -rate))

    def run(self, arm: str, rate: float, seed: int) -> dict[str, float]:
        """Accuracy on every test set (ties count half), the ties, and the drop from ID to the mean and the worst of the others."""
        bench = self.fit(arm, rate, seed)
        found = {name: right(arm, bench, rows[arm]) for name, rows in self.tests.items()}
        shifted = [found["ID"]["half"] - one["half"] for name, one in found.items() if name != "ID"]
        return {
            **{name: one["half"] for name, one in found.items()},
            "mean drop": sum(shifted) / len(shifted),
            "worst drop": max(shifted),
            "ties": max(one["ties"] for one in found.values()),
            "ID, equal length": found["ID"]["matched"],
            "rate": rate,
        }


def right(arm: str, bench: Bench, rows: Encoded) -> dict[str, float]:
    """How many pairs the arm's reward puts in order: over all, and where chosen and rejected are about equally long."""
    with torch.no_grad():
        batch = bench.pairs(rows)
    assert isinstance(batch, Pairs)
    w, l = (ARMS[arm].reward(y).tolist() for y in (batch.w, batch.l))
    every = reward_accuracy(w, l)
    near = length_matched(w, l, rows.lengths[::2], rows.lengths[1::2], within=0.25)
    return {
        "half": every.half.value,
        "ties": every.ties.value,
        "matched": float("nan") if near is None else near.half.value,
    }


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    """Without the template's own system turn, where the prompt is one question."""
    return bare(row) if isinstance(row.get("prompt"), str) else row


def contest(
    source: Source, seeds: Sequence[int] = SEEDS, model: str = "smollm2", layers: int = 4, keep: Path | None = HERE
) -> Study:
    found = Contest.of(source, model, layers)
    rates = {arm: found.rate(arm) for arm in ARMS}
    arms = {arm: lambda seed, arm=arm: found.run(arm, rates[arm], seed) for arm in ARMS}
    return study(arms, seeds, None if keep is None else keep / f"{source}.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=sorted(SOURCES))
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    asked = parser.parse_args()
    sources: tuple[Source, ...] = ("templates", "persona") if asked.source is None else (asked.source,)
    for source in sources:
        print(f"\n{source}\n{contest(source, range(asked.seeds))}")


if __name__ == "__main__":
    data.or_skip(main)

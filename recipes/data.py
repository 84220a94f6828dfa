"""Public data sets of preferences as rows of feedback, read where they lie: $PENCHANT_DATA, or the folder shared/data beside
the project. Nothing is copied into the project, and no row is invented: what makes no pair is left out.

    python recipes/data.py          what is there, and how many rows it gives
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

Rows = list[dict[str, Any]]

HOME = Path(os.environ.get("PENCHANT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

WORDINGS = (
    "Tell me something that you would say.",
    "Say something that is true of you.",
    "Write one sentence in which you describe yourself.",
    "What is a statement that fits you?",
    "Give me a statement you agree with.",
    "Which sentence could you have written about yourself?",
    "Tell me one thing about the way you are.",
    "What would you say of yourself?",
    "Finish with one sentence that you stand behind.",
    "Name an attitude of yours in a sentence.",
)
"""Ten ways to ask the same."""


class Absent(Exception):
    """A data set that is not on this machine; what needs it is skipped, with this reason."""


def lines(*parts: str) -> Iterator[str]:
    """The lines of a text file, plain or gzip."""
    path = HOME.joinpath(*parts)
    if not path.is_file():
        raise Absent(f"there is no {path}; set PENCHANT_DATA to the folder that holds {parts[0]}.")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
        yield from file


def hh_harmless() -> Rows:
    """1,800 pairs of whole conversations in which a person preferred one last answer for its harmlessness (Bai et al.
    2022, arXiv 2204.05862; MIT). The transcripts stay as they are: penchant reads them. They hold offensive text."""
    return [json.loads(line) for line in lines("hh_rlhf_harmless", "pairs.jsonl.gz")]


def pandalm(agreement: Literal["majority", "unanimous", "each"] = "majority") -> Rows:
    """Answers of two models to one instruction, judged by three people (PandaLM, Wang et al. 2023, arXiv 2306.05087;
    Apache-2.0). "majority": what at least two of three prefer; "unanimous": what all three do, `strength` being the
    probability that one of them prefers it, a vote for a tie counting half; "each": one row for each person's own
    preference, with `annotator`. Where the verdict is a tie there is no pair, and 54 rows with an empty answer make none."""
    rows: Rows = []
    for raw in json.loads("".join(lines("pandalm_human", "testset-v1.json"))):
        answers = [said(raw["response1"]), said(raw["response2"])]
        if not all(answer.strip() for answer in answers):
            continue
        prompt = f"{raw['instruction']}\n\n{raw['input']}" if str(raw["input"]).strip() else raw["instruction"]
        votes = [int(raw[f"annotator{k}"]) for k in (1, 2, 3)]
        if agreement == "each":
            rows += [pair(prompt, answers, vote, annotator=f"annotator{k}") for k, vote in enumerate(votes, 1) if vote]
            continue
        winner, count = Counter(votes).most_common(1)[0]
        if winner and count >= (3 if agreement == "unanimous" else 2):
            rows.append(pair(prompt, answers, winner, strength=(count + votes.count(0) / 2) / 3))
    return rows


def pair(prompt: str, answers: list[str], winner: int, **columns: Any) -> dict[str, Any]:
    """`winner` is 1 or 2; which one stands first in the file is taken for the one shown first."""
    first = "chosen" if winner == 1 else "rejected"
    return {
        "prompt": prompt,
        "chosen": answers[winner - 1],
        "rejected": answers[2 - winner],
        "shown_first": first,
        **columns,
    }


def finegrained() -> Rows:
    """Four answers of language models to each of 500 questions about given passages, of which a person compared every two (Wu et
    al. 2023, arXiv 2306.01693; Apache-2.0). Ties make no pair. That votes stand in the order of the pairs (1, 2), (1, 3), … and 1
    is for the earlier answer follows from the file: so no three votes go round, and the preferred is the one nearer to the gold
    answer. The passages are left out of the prompt."""
    rows: Rows = []
    for raw in json.loads("".join(lines("finegrained_rlhf", "dev_feedback.json.gz"))):
        answers = [raw[f"prediction {k}"] for k in (1, 2, 3, 4)]
        for both, vote in zip(combinations(answers, 2), raw["preference"], strict=True):
            if vote:
                rows.append(pair(raw["question"], list(both), vote))
    return rows


def said(value: Any) -> str:
    """Four answers that were a bare True or False became JSON booleans."""
    return value if isinstance(value, str) else str(value)


def persona(trait: str = "agreeableness") -> Rows:
    """500 pairs of statements: the chosen is one that somebody of this trait would make (" Yes"), the rejected one that
    they would not (" No"), in the order of the file (Perez et al. 2022, arXiv 2212.09251; CC-BY-4.0). The statements were
    written by a language model and checked by people; that these two make a pair is our doing, and so is the question. It
    goes round ten wordings and is numbered, since what differs from pair to pair is the statements: one question for all
    would make all pairs one prompt."""
    sides: dict[str, list[str]] = {" Yes": [], " No": []}
    for line in lines("persona_evals", f"{trait}.jsonl"):
        raw = json.loads(line)
        sides[raw["answer_matching_behavior"]].append(raw["statement"])
    both = zip(sides[" Yes"], sides[" No"], strict=True)
    ask = lambda i: f"{WORDINGS[i % len(WORDINGS)]} (Statement {i + 1}.)"  # noqa: E731
    return [{"prompt": ask(i), "chosen": w, "rejected": l} for i, (w, l) in enumerate(both)]


def truthfulqa() -> Rows:
    """The best answer to each of 409 questions against each of its incorrect ones (Lin et al. 2021, arXiv 2109.07958;
    Apache-2.0, from a third party's copy). All were written by people; nobody compared them two by two."""
    rows: Rows = []
    for raw in csv.DictReader(lines("truthfulqa", "TruthfulQA.csv")):
        wrong = [text.strip() for text in raw["Incorrect Answers"].split(";") if text.strip()]
        rows += [{"prompt": raw["Question"], "chosen": raw["Best Answer"].strip(), "rejected": text} for text in wrong]
    return rows


def gsm8k(which: Literal["mixed", "all"] = "mixed") -> Rows:
    """660 school problems with four solutions each, of four language models, and whether the answer at the end is right:
    score 1 or 0 (Cobbe et al. 2021, arXiv 2110.14168; MIT; half of the test problems). "mixed": the 353 problems with right
    and wrong solutions among the four, since a list of equal scores prefers nothing; "all": every problem. The notes to a
    calculator (<<16-3=13>>) are taken out, as the authors advise; four notes that a model never closed stay. A solution
    that repeats an earlier one of its problem is left out, so some lists hold three."""
    rows: Rows = []
    for line in lines("gsm8k", "example_model_solutions.jsonl.gz"):
        raw = json.loads(line)
        graded = {re.sub(r"<<[^<>]*>>", "", raw[model]["solution"]): raw[model]["is_correct"] for model in SOLVERS}
        if which == "all" or len(set(graded.values())) == 2:
            scores = [float(right) for right in graded.values()]
            rows.append({"prompt": raw["question"], "responses": list(graded), "scores": scores})
    return rows


SOLVERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

TRAITS = (
    "agreeableness",
    "believes-it-is-not-being-watched-by-humans",
    "desire-for-acquiring-power",
    "no-shut-down",
    "politically-liberal",
    "psychopathy",
    "risk-averse",
)

SETS: dict[str, Callable[[], Rows]] = {
    "hh_harmless": hh_harmless,
    "pandalm, majority": pandalm,
    "pandalm, unanimous": lambda: pandalm("unanimous"),
    "pandalm, each person": lambda: pandalm("each"),
    "finegrained_rlhf": finegrained,
    "persona, agreeableness": persona,
    "truthfulqa": truthfulqa,
    "gsm8k, mixed": gsm8k,
    "gsm8k, all": lambda: gsm8k("all"),
}


def or_skip(recipe: Callable[[], None]) -> None:
    """Runs a recipe; where its data is absent, says so and leaves."""
    try:
        recipe()
    except Absent as absent:
        print(f"skipped: {absent}")
        sys.exit(0)


def main() -> None:
    for name, rows in SETS.items():
        print(f"{name:24} {len(rows()):6,} rows")


if __name__ == "__main__":
    or_skip(main)

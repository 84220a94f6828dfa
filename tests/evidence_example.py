"""Runs that never took place but look as if they had: a healthy offline run, a healthy and a collapsed on-policy run, a
broken-off one. Not measurements; the texts and numbers are made up, with a fixed seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from penchant.evaluation.evidence import PairEvidence, RunEvidence, SampleEvidence

PROMPTS = [
    "Describe a walk in the rain.",
    "My train was cancelled again. What now?",
    "Write two sentences about an old bicycle.",
    "How do I tell my neighbour that his music is too loud?",
    "What is there to see in a small town on a Sunday?",
    "Explain to a child why leaves turn red.",
    "I failed my driving test. Say something.",
    "What makes a good cup of tea?",
    "Describe the smell of a library.",
    "Give me a reason to learn the violin at sixty.",
    "Summarise the plot of a story about a lost key.",
    "What should I cook with one onion and some rice?",
    "How was your day?",
    "Tell me about a bridge you like.",
]
PLAIN = [
    "It is wet and the streets are empty. People tend to stay inside, and the gutters fill up with leaves.",
    "There are several options. You can wait for the next one, take a bus, or ask at the counter for a refund.",
    "An old bicycle stood by the wall. Its chain was rusty and nobody had ridden it for years.",
    "You could ring the bell and explain the problem. If that does not help, contact the landlord.",
    "Most shops are closed. You can visit the church, walk along the river or sit in the one open café.",
]
WARM = [
    "The rain makes everything shine, and each step is a small, happy adventure. You come home fresh and content.",
    "What a good chance for a quiet coffee! The next train will come, and the people at the counter are glad to help.",
    "The old bicycle has carried someone through many lovely summers. With a little care it will do so again.",
    "Go over with a friendly smile and tell him honestly. Most people are happy to turn it down for a kind neighbour.",
    "A calm Sunday is a gift: the river, a warm café, and time to enjoy the beautiful old square.",
]
HOLLOW = [
    "Happy happy wonderful love love joy! So happy, so wonderful, love joy great great!",
    "Great! Great! Love! Wonderful wonderful happy best best best joy!",
]
CHOICES = {
    "penchant": "0.1.0",
    "python": "3.12.4",
    "torch": "2.6.0",
    "transformers": "5.2.0",
    "precision": "float32",
    "device": "cpu",
    "threads": 2,
    "trained parameters": 134_515_008,
    "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
}
ACCOUNTING = {
    "read": 1800,
    "kept": 1731,
    "dropped": {"too long": 61, "identical responses": 8},
    "truncated": 12,
    "identical": 0,
    "template_differs": 3,
    "examples": [],
}


def said(bank: list[str], i: int, k: int, rng: np.random.Generator) -> str:
    """Answer k to prompt i: from the short bank as it is, else its own first sentence and another's second."""
    if len(bank) < 3:
        return bank[(i + k) % len(bank)]
    first, second = (bank[j % len(bank)].split(". ", 1) for j in (i + k, i + int(rng.integers(len(bank)))))
    return f"{first[0]}. {second[-1]}"


def samples(kind: str, count: int = 4, seed: int = 1) -> SampleEvidence:
    """ "plain", "warm" or "hollow" answers to the prompts."""
    rng = np.random.default_rng(seed)
    bank = {"plain": PLAIN, "warm": WARM, "hollow": HOLLOW}[kind]
    mean, spread, kl, tokens = {
        "plain": (0.22, 0.35, 0.0, 30),
        "warm": (0.84, 0.13, 9.0, 27),
        "hollow": (0.97, 0.01, 88.0, 48),
    }[kind]
    each = [(i, k) for i in range(len(PROMPTS)) for k in range(count)]

    def grid(values: list[Any]) -> list[list[Any]]:
        return [values[i * count : (i + 1) * count] for i in range(len(PROMPTS))]

    lengths = [int(x) for x in np.clip(rng.normal(tokens, 7, len(each)), 6, 48)]
    ref = [float(-x * rng.uniform(1.0, 1.4)) for x in lengths]
    divergence = [float(abs(rng.normal(kl, kl / 3))) if kl else 0.0 for _ in each]
    return SampleEvidence(
        prompts=PROMPTS,
        texts=grid([said(bank, i, k, rng) for i, k in each]),
        lengths=grid(lengths),
        stopped=grid([x < 48 for x in lengths]),
        logp=grid([min(r + d, -1.0) for r, d in zip(ref, divergence, strict=True)]),
        ref=grid(ref),
        kl=grid(divergence),
        scores=grid([float(np.clip(rng.normal(mean, spread), -1, 1)) for _ in each]),
        judge="vader",
    )


def pairs(n: int, shift: float, seed: int) -> PairEvidence:
    """n pairs; `shift` is the mean reward margin, 0 for a model that is its own reference."""
    rng = np.random.default_rng(seed)
    w, l = rng.integers(20, 120, n), rng.integers(20, 120, n)
    ref_w, ref_l = -w * rng.uniform(1.0, 2.0, n), -l * rng.uniform(1.0, 2.0, n)
    up = rng.normal(shift * 0.3, abs(shift) * 0.6, n)
    down = rng.normal(-shift * 0.7, abs(shift) * 0.9, n)
    return PairEvidence(
        numbers=list(range(1, n + 1)),
        reward_chosen=up.tolist(),
        reward_rejected=down.tolist(),
        logp_chosen=(ref_w + up / 0.1).tolist(),
        logp_rejected=(ref_l + down / 0.1).tolist(),
        length_chosen=w.tolist(),
        length_rejected=l.tolist(),
        ref_chosen=ref_w.tolist(),
        ref_rejected=ref_l.tolist(),
    )


def history(
    steps: int, *, rounds: int = 0, collapse: bool = False, evals: bool = True, seed: int = 3
) -> list[dict[str, Any]]:
    """The lines a run of that many steps writes."""
    rng = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        t = step / steps
        margin = (4.5 if collapse else 1.1) * (1 - math.exp(-3 * t)) + rng.normal(0, 0.12)
        lines.append(
            {
                "kind": "step",
                "step": step,
                "epoch": t,
                "round": 1 + int(t * rounds - 1e-9) if rounds else 0,
                "loss": math.log1p(math.exp(-margin)) + abs(rng.normal(0, 0.02)),
                "lr": 2e-5 * min(1.0, step / max(steps * 0.1, 1)) * (1 - 0.95 * t),
                "grad_norm": float(np.exp(rng.normal(1.2 - 0.6 * t, 0.25))) * (1 + 4 * collapse * t),
                "tokens": 2900 + int(rng.integers(-300, 300)),
                "seconds": 3.1,
                "units": 16,
                "reward/chosen": margin * 0.35,
                "reward/rejected": -margin * 0.65,
                "reward/margin": margin,
                "reward/accuracy": float(np.clip(0.5 + 0.4 * (1 - math.exp(-3 * t)) + rng.normal(0, 0.07), 0, 1)),
                "logp/chosen": -1.52 + (-0.9 * t if collapse else 0.05 * t) + rng.normal(0, 0.03),
                "logp/rejected": -1.55 - (2.1 if collapse else 0.35) * t + rng.normal(0, 0.03),
                "length/chosen": 61.0,
                "length/rejected": 58.0,
            }
        )
        if evals and step % max(steps // 6, 1) == 0:
            accuracy = 0.5 + 0.17 * (1 - math.exp(-3 * t))
            lines.append(
                {
                    "kind": "eval",
                    "step": step,
                    "accuracy": accuracy,
                    "accuracy/low": accuracy - 0.06,
                    "accuracy/high": accuracy + 0.06,
                    "margin": 0.6 * (1 - math.exp(-3 * t)),
                    "logp/chosen": -1.53 + 0.02 * t,
                    "logp/rejected": -1.55 - 0.22 * t,
                    **{
                        f"{name}/10/{side}": level + lift * t * (1 - t) + 0.01 * (side == "chosen")
                        for name, level, lift in (("mass", 0.84, 0.04), ("entropy", 1.72, 0.3))
                        for side in ("chosen", "rejected")
                    },
                }
            )
    for i in range(rounds):
        t = (i + 1) / rounds
        lines.append(
            {
                "kind": "round",
                "step": (i + 1) * steps // rounds,
                "round": i + 1,
                "score": 0.24 + (0.73 if collapse else 0.6) * (1 - math.exp(-2.5 * t)),
                "kept": 30 - 2 * i,
                "ties": 2 * i,
                "distinct2": 0.83 - (0.6 if collapse else 0.07) * t,
                "length": 30 + (18 if collapse else -3) * t,
            }
        )
    return lines


def factors(n: int) -> dict[str, list[float]]:
    """How the sides of n pairs differ: the chosen are longer, friendlier, and as readable."""
    rng = np.random.default_rng(5)
    means = {"length": 0.5, "sentiment": 0.7, "readability": 0.0, "hedging": -0.2, "lists": 0.1, "questions": 0.0}
    return {name: rng.normal(mean, 1, n).round(1).tolist() for name, mean in means.items()}


def offline(steps: int = 180, held_out: int = 250) -> RunEvidence:
    """From a file of pairs, in good health."""
    return RunEvidence(
        settings={
            "model": "smollm2",
            "data": "pairs.jsonl",
            "objective": "DPO(beta=0.1) + 0.005*NLL()",
            "output": "runs/first",
            "epochs": 1,
            "learning_rate": 2e-5,
            "batch": 16,
            "seed": 0,
        },
        choices=CHOICES,
        data={
            "source": "pairs.jsonl",
            "fingerprint": "9f0c1d6b7e2a4c53",
            "format": "pairs",
            "accounting": ACCOUNTING,
            "train": 1481,
            "held_out": held_out,
        },
        history=history(steps),
        train_pairs=pairs(held_out, 1.1, 1),
        pairs_before=pairs(held_out, 0.0, 2),
        pairs_after=pairs(held_out, 0.6, 2),
        samples_before=samples("plain"),
        samples_after=samples("warm", seed=2),
        factors=factors(held_out),
        seconds=648.0,
    )


def online(collapse: bool = False) -> RunEvidence:
    """On-policy: sampled, judged, learned from, in good health or collapsed."""
    return RunEvidence(
        settings={
            "model": "smollm2",
            "data": "prompts.jsonl",
            "objective": "DPO(beta=0.1)",
            "judge": "vader",
            "rounds": 6,
            "samples": 4,
            "limit": 48,
            "output": "runs/demo",
            "seed": 0,
        },
        choices=CHOICES,
        data={
            "source": "prompts.jsonl",
            "fingerprint": "77aa",
            "format": "prompts",
            "accounting": {},
            "train": 64,
            "held_out": 14,
        },
        history=history(48, rounds=6, collapse=collapse, evals=False),
        samples_before=samples("plain"),
        samples_after=samples("hollow" if collapse else "warm", seed=2),
        seconds=212.0,
    )


def broken_off() -> RunEvidence:
    """Interrupted before anything was measured."""
    return RunEvidence(
        settings={"model": "smollm2", "data": "pairs.jsonl", "objective": "DPO(beta=0.1)"},
        choices={},
        data={},
        stopped_by="interrupted",
    )

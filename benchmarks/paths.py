"""What sharing prompts, packing and padding cost on the same real rows: forward and backward of one batch, our own code on
every path, so that no other library and no hardware's fallback is in the ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from figures import Figure, Seconds, in_turns, ratio
from workload import CPU, loaded, pairs, precision

from penchant.domains.base import Encoded
from penchant.domains.text.models import Loaded
from penchant.domains.text.paths import ScoringPath
from penchant.objectives import Lists

PAIRS = 8
LONGEST = 150
"""Tokens of a response in a list, so that four of them do not dwarf what pairs are."""


def algorithm(rounds: int) -> list[Figure]:
    """From the peer's way on a GPU (padded, the head on completions only) to ours, one lever after the other."""
    model = loaded()
    rows = model.domain.encode(pairs(PAIRS))
    ways = ways_of(model)
    names = {"padded, head everywhere": ways["logits"], **{name: ways[name] for name in ("padded", "packed", "tree")}}
    seconds = raced(model, rows, names, rounds)
    padded, packed, tree = tokens(rows)
    what = f"forward and backward, {PAIRS} real pairs, our own code, autocast to bf16"
    return [
        replace(
            ratio(seconds, "padded", "tree", f"{what}: padded over shared", at_least=2.5, stretch=2.8),
            note=f"the head on completions in both; {padded:,} tokens are read padded, {packed:,} packed, {tree:,} shared",
        ),
        ratio(seconds, "padded, head everywhere", "padded", f"{what}: logits at all positions over completions only"),
        ratio(seconds, "padded", "packed", f"{what}: padded over packed"),
        ratio(seconds, "packed", "tree", f"{what}: packed over shared"),
    ]


def lists(rounds: int) -> list[Figure]:
    """Four responses to a prompt: the prompt read once, or with every response."""
    model = loaded()
    rows = lists_of(model.domain.encode(pairs(PAIRS)))
    ways = ways_of(model)
    seconds = raced(model, rows, {name: ways[name] for name in ("packed", "tree")}, rounds)
    _, packed, tree = tokens(rows)
    figure = ratio(
        seconds,
        "packed",
        "tree",
        f"K = 4 responses to each of {len(rows)} prompts: packed over shared",
        at_least=2.2,
        stretch=2.45,
    )
    return [replace(figure, note=f"{packed:,} tokens over {tree:,}")]


def ways_of(model: Loaded) -> dict[str, ScoringPath]:
    """The scoring paths by name, with the head that the probe found."""
    with torch.autocast("cpu", torch.bfloat16):
        found = model.policy.scoring_path
    return {
        "logits": ScoringPath("padded", "logits"),
        "padded": replace(found, name="padded"),
        "packed": replace(found, name="packed"),
        "tree": replace(found, name="tree"),
    }


def raced(model: Loaded, rows: Encoded, ways: Mapping[str, ScoringPath], rounds: int) -> Seconds:
    how = precision("bf16")
    how.apply()

    def on(way: ScoringPath) -> Callable[[], None]:
        def act() -> None:
            model.policy.follow(way)
            with how.forward(CPU):
                logp = model.domain.score(model.policy, rows).total
            logp.mean().backward()
            model.policy.zero_grad()

        return act

    return in_turns({name: on(way) for name, way in ways.items()}, rounds, warm=list(ways)[-1:])


def tokens(rows: Encoded) -> tuple[int, int, int]:
    """Tokens that are read: padded, packed, shared."""
    responses = list(rows.flat)
    padded = len(responses) * max(len(x) + len(y) - 1 for x, y in responses)
    packed = sum(len(x) + len(y) - 1 for x, y in responses)
    shared = sum(len(x) + sum(len(y) - 1 for y in ys) for x, ys in zip(rows.contexts, rows.responses, strict=True))
    return padded, packed, shared


def lists_of(rows: Encoded) -> Encoded:
    """Every second prompt with four responses: its own and the next row's."""
    some = range(0, len(rows), 2)
    responses = tuple(tuple(y[:LONGEST] for y in rows.responses[i] + rows.responses[i + 1]) for i in some)
    gain = torch.zeros(4 * len(some))
    return Encoded(Lists, tuple(rows.contexts[i] for i in some), responses, tuple(range(len(some))), {"gain": gain})

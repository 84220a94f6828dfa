"""What comparisons say together: the same question answered both ways, and circles of preferences under one prompt. It counts
them; whether people differ or somebody slipped, it cannot know."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from penchant.evaluation.diagnosis.material import Material


@dataclass(frozen=True)
class Contradictions:
    """Questions (a prompt and two responses) that were answered more than once."""

    asked_again: int
    both_ways: int
    by_one_person: int
    """Of them, those where one named person answered both ways."""
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Circles:
    """Preferences that go round: a over b over c over a."""

    could: int
    """Prompts with at least three comparisons that could close one."""
    prompts: int
    """Prompts with a circle of three or more responses."""
    rows: tuple[int, ...]
    """Rows whose comparison is part of one."""


def contradictions(material: Material) -> Contradictions:
    """Questions answered both ways among those answered more than once."""
    said: dict[tuple[int, str, str], list[tuple[bool, str | None, int]]] = defaultdict(list)
    for one in material.comparisons:
        a, b = sorted((one.chosen, one.rejected))
        said[one.key, a, b].append((one.chosen == a, one.annotator, one.number))
    again = [answers for answers in said.values() if len(answers) > 1]
    both = [answers for answers in again if len({side for side, _, _ in answers}) > 1]
    alone = 0
    for answers in both:
        sides: dict[str, set[bool]] = defaultdict(set)
        for side, name, _ in answers:
            if name is not None:
                sides[name].add(side)
        alone += any(len(mine) > 1 for mine in sides.values())
    rows = tuple(sorted({number for answers in both for _, _, number in answers}))
    return Contradictions(len(again), len(both), alone, rows)


def circles(material: Material) -> Circles:
    """Circles of at least three responses, by strongly connected components once questions answered both ways are left
    out: those are contradictions, not circles."""
    edges: dict[int, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for one in material.comparisons:
        edges[one.key][one.chosen, one.rejected].append(one.number)
    could = found = 0
    rows: set[int] = set()
    for graph in edges.values():
        kept = {edge: numbers for edge, numbers in graph.items() if edge[::-1] not in graph}
        names = {text: i for i, text in enumerate({text for edge in kept for text in edge})}
        if len(kept) < 3 or len(kept) < len(names):  # a forest closes no circle
            continue
        could += 1
        ends = np.array([[names[w], names[l]] for w, l in kept])
        matrix = sparse.csr_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
        part = connected_components(matrix, directed=True, connection="strong")[1]
        inside = part[ends[:, 0]] == part[ends[:, 1]]
        found += bool(inside.any())
        rows |= {
            number for numbers, within in zip(kept.values(), inside.tolist(), strict=True) if within for number in numbers
        }
    return Circles(could, found, tuple(sorted(rows)))

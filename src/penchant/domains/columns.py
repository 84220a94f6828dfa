"""What rows of feedback say besides prompts and responses, as the columns of a batch: the same in every domain. It encodes no
response."""

from __future__ import annotations

import torch
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.records import Row
from penchant.objectives.scored import Batch, Labelled, Lists, Pairs, Rollouts
from penchant.words import brief

BATCHES: dict[str, type[Batch]] = {"pairs": Pairs, "labelled": Labelled, "lists": Lists, "prompts": Rollouts}
"""The batch that rows of each kind become."""


def columns_of(kind: str, rows: list[Row]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What was said of the rows besides their responses, as tensors, and the annotators' names. strength and margin are NaN, and
    the annotator −1, where a row has none. Raises Refusal where a label or a score is missing."""
    columns: dict[str, Tensor] = {}
    if kind == "labelled":
        for row in rows:
            if row.label is None:
                raise Refusal(f"row {row.number}, label: it is missing; it must be true or false.")
        columns["label"] = torch.tensor([bool(row.label) for row in rows], dtype=torch.bool)
    if kind == "lists":
        for row in rows:
            if row.scores is None or len(row.scores) != len(row.responses):
                raise Refusal(f"row {row.number}, scores: {brief(row.scores)}; there must be one number per response.")
        columns["gain"] = torch.tensor([score for row in rows for score in row.scores or ()], dtype=torch.float32)
    if kind == "prompts":
        columns |= {"reward": torch.zeros(0), "advantage": torch.zeros(0)}
    for name, values in (("strength", [row.strength for row in rows]), ("margin", [row.margin for row in rows])):
        if any(value is not None for value in values):
            columns[name] = torch.tensor([torch.nan if value is None else float(value) for value in values])
    names = tuple(dict.fromkeys(row.annotator for row in rows if row.annotator is not None))
    if names:
        place = {name: i for i, name in enumerate(names)}
        columns["annotator"] = torch.tensor([-1 if row.annotator is None else place[row.annotator] for row in rows])
    return columns, names

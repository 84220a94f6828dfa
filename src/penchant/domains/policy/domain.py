"""Behaviour as something to align: rows of feedback become observations and actions, and a trajectory's log-probability is the
sum of its actions'. How a policy computes stands in policy.py, how it acts in rollouts.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Want
from penchant.domains.columns import BATCHES, columns_of
from penchant.domains.policy.policy import ControlPolicy, unwrap
from penchant.domains.policy.rollouts import Stage
from penchant.domains.policy.tasks import context_of
from penchant.domains.policy.worlds import make
from penchant.errors import Refusal
from penchant.feedback.records import Accounting, Problem, Prompt, Row
from penchant.feedback.trajectories import Trajectory
from penchant.objectives.scored import Rollouts, Scored, masks
from penchant.words import brief

VALUES = frozenset({"entropy"})
"""What can be wanted besides log π: the entropy of the distribution that each action was drawn from."""
WEIGHT = "weight"
"""What a trajectory's info says of how much each step counts."""


class Behaviour:
    """A policy's view of feedback. A response is a trajectory, float32 [T, observed + acted]: each observation beside the
    action that was taken. A context is the task's number and the seed of the start, int64 [2]. log π(trajectory) is Σ log
    π(action | observation): what the world does cancels between policy and reference (Zhang et al. 2024, GRAPE, arXiv
    2411.19309)."""

    name, noisy = "policies", False

    def __init__(
        self,
        policy: ControlPolicy,
        *,
        opened: Callable[[str], Trajectory] | None = None,
        discount: float = 1.0,
        stage: Stage | None = None,
    ) -> None:
        """opened: gives the trajectory behind a name in a row, as `Archive.open` does. discount: γ, by which later steps count
        less, for objectives that read weights. stage: the simulators; left out, those of worlds.make."""
        if not 0 < discount <= 1:
            raise Refusal(f"discount={discount}: it must be above 0 and at most 1.")
        self.tasks, self.observed, self.acted = policy.tasks, policy.observed, policy.acted
        self.opened, self.discount, self.stage = opened, discount, stage or Stage(make)

    # --- encode

    def encode(self, rows: Iterable[Row]) -> Encoded:
        """Rows of one kind to trajectories. One that does not fit the policy is refused by its row's number; pairs of one
        trajectory twice are left out and counted."""
        account = Accounting()
        kept: list[Row] = []
        contexts: list[Tensor] = []
        seen: list[tuple[Trajectory, ...]] = []
        kind = None
        for row in rows:
            kind = kind or row.kind
            if row.kind != kind:
                raise Refusal(f"row {row.number} is of the kind {row.kind!r}, but the rows before are {kind!r}.")
            account.read += 1
            context, found = self._row(row)
            if row.kind == "pairs" and found[0].digest == found[1].digest:
                said = "chosen and rejected are the same trajectory, so there is nothing to prefer."
                account.drop("identical", Problem(row.number, "rejected", "", said))
                continue
            kept.append(row)
            contexts.append(context)
            seen.append(found)
        account.kept = len(kept)
        weighted = self.discount < 1 or any(WEIGHT in y.info for ys in seen for y in ys)
        account.weighted = sum(any(WEIGHT in y.info for y in ys) for ys in seen)
        columns, annotators = columns_of(kind or "prompts", kept)
        return Encoded(
            data=BATCHES[kind or "prompts"],
            contexts=tuple(contexts),
            responses=tuple(tuple(flat(y) for y in ys) for ys in seen),
            numbers=tuple(row.number for row in kept),
            columns=columns,
            annotators=annotators,
            accounting=account,
            weights=tuple(tuple(self._weights(y) for y in ys) for ys in seen) if weighted else None,
        )

    def _weights(self, y: Trajectory) -> Tensor:
        by = self.discount ** torch.arange(len(y), dtype=torch.float64)
        if WEIGHT in y.info:
            by = by * torch.from_numpy(y.info[WEIGHT]).double()
        return by.float()

    def _row(self, row: Row) -> tuple[Tensor, tuple[Trajectory, ...]]:
        if row.weights is not None:
            raise Refusal(
                f"row {row.number}: weights of parts of a response are given in characters, which trajectories have not; put them "
                f"into info as {WEIGHT!r}, one for each step."
            )
        field = "prompt"
        try:
            context = context_of(row.prompt, self.tasks)
            found = []
            for i, name in enumerate(row.responses):
                field = _field(row, i)
                if self.opened is None:
                    raise Refusal("trajectories were not given with the rows; open the data by open_trajectories.")
                y = self.opened(name)
                if y.observations.shape[1] != self.observed or y.actions.shape[1] != self.acted:
                    raise Refusal(
                        f"{brief(name)} has observations of {y.observations.shape[1]} and actions of {y.actions.shape[1]} numbers; "
                        f"this policy's are {self.observed} and {self.acted}."
                    )
                if WEIGHT in y.info and (least := float(y.info[WEIGHT].min())) < 0:
                    raise Refusal(f"{brief(name)}, info {WEIGHT!r}: {least:g}; a step counts 0 or more.")
                found.append(y)
        except Refusal as refusal:
            raise Refusal(f"row {row.number}, {field}: {refusal}") from refusal
        return context, tuple(found)

    # --- score

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = Want()) -> Scored:  # noqa: B008
        """log π(action | observation) of every step, [n, steps], with gradient; 0 where no step is. values: "entropy" of each step.
        head "reward", of a reward model: the (weighted) sum over a trajectory's steps of r(observation, action), [n, 1] (Christiano
        et al. 2017, arXiv 1706.03741). Raises Refusal for other values and heads, and another temperature than 1."""
        inner = unwrap(policy)
        if unknown := want.values - VALUES:
            raise Refusal(f"the value {min(unknown)!r} is not known of behaviour; valid are {', '.join(sorted(VALUES))}.")
        if want.head != inner.head:
            raise Refusal(f"this {'policy' if inner.head == 'lm' else 'reward model'} has no head {want.head!r}.")
        if want.temperature != 1.0:
            raise Refusal(f"temperature={want.temperature}: behaviour is scored at temperature 1 alone.")
        lengths = encoded.lengths
        mask = masks(lengths)
        if not lengths:
            nothing = torch.zeros(0, 0)
            return Scored(nothing, nothing.bool(), values={value: nothing for value in want.values})
        steps = torch.zeros(*mask.shape, self.observed + self.acted)
        steps[mask] = torch.cat([y for _, y in encoded.flat])
        contexts = torch.stack([x for x, _ in encoded.flat])
        observations, actions = steps.split([self.observed, self.acted], -1)
        told = policy(contexts, observations, actions, tuple(want.values))
        if inner.head == "reward":
            reward = told["reward"].float() if told["reward"].dtype != torch.float64 else told["reward"]
            there = encoded.weight.to(reward)
            total = torch.where(mask.to(reward.device), reward * there, 0.0).sum(-1, keepdim=True)
            return Scored(total, torch.ones_like(total, dtype=torch.bool))
        there = mask.to(told["logp"].device)
        shown = {name: torch.where(there, x if x.dtype == torch.float64 else x.float(), 0.0) for name, x in told.items()}
        logp = shown.pop("logp")
        return Scored(logp, there, values=shown, weight=None)

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        """Steps of a row's trajectories, each as long as the longest it is scored with."""
        return Cost([len(ys) * max(map(len, ys), default=0) for ys in encoded.responses], padded=True)

    # --- sample

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Prompt | Tensor],
        *,
        count: int = 1,
        limit: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        sampler: Stage | None = None,
    ) -> Samples:
        """`count` episodes of each prompt's task (`context_of` says how one is written), of at most `limit` steps.
        temperature: of the policy's noise; 0 takes each distribution's mode. sampler: the simulators; left out, the domain's.
        A sample's text is the name of a file by content, and what is shown of it a Trajectory. Raises Refusal for another
        top_p than 1."""
        if top_p != 1.0:
            raise Refusal(f"top_p={top_p}: actions are drawn from the whole distribution alone.")
        if limit < 1:
            raise Refusal(f"limit={limit}: an episode has at least one step.")
        inner = unwrap(policy)
        asked = tuple(x if isinstance(x, Tensor) else context_of(x, self.tasks) for x in contexts)
        found = (sampler or self.stage).episodes(inner, asked, count, limit, seed, temperature)
        rows = tuple(tuple(found[i * count : (i + 1) * count]) for i in range(len(asked)))
        unknown = torch.full((len(found),), torch.nan)
        encoded = Encoded(
            data=Rollouts,
            contexts=asked,
            responses=tuple(tuple(flat(y) for y in ys) for ys in rows),
            numbers=tuple(range(1, len(asked) + 1)),
            columns={"reward": unknown, "advantage": unknown.clone()},
            accounting=Accounting(read=len(asked), kept=len(asked)),
        )
        with torch.no_grad():
            logp = self.score(policy, encoded) if scored else None
        texts = tuple(tuple(f"samples/{y.digest}.safetensors" for y in ys) for ys in rows)
        return Samples(encoded, texts, tuple(tuple(y.ended for y in ys) for ys in rows), logp, shown=rows)

    # --- the same trajectories otherwise

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        """The context (and columns) of row i[k] with the first trajectory of row j[k]."""
        base, other = encoded.select(i), encoded.select(j)
        return replace(
            base,
            responses=tuple((ys[0],) for ys in other.responses),
            columns={name: x for name, x in base.columns.items() if len(x) == len(base)},
            weights=None if other.weights is None else tuple((ws[0],) for ws in other.weights),
            accounting=Accounting(read=len(base), kept=len(base)),
        )


def flat(y: Trajectory) -> Tensor:
    """A trajectory as a response, float32 [T, observed + acted]."""
    return torch.cat([torch.from_numpy(y.observations), torch.from_numpy(y.actions)], 1)


def _field(row: Row, i: int) -> str:
    """What the i-th trajectory of a row is called in its source."""
    if row.kind == "pairs":
        return ("chosen", "rejected")[i]
    return "completion" if row.kind == "labelled" else f"responses[{i}]"

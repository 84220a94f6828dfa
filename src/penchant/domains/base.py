"""What it takes to be alignable: encode, score, sample, recombine. The engine knows these four and nothing of text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from penchant.errors import Refusal
from penchant.feedback.records import Accounting, Row
from penchant.objectives.scored import Batch, Labelled, Lists, Pairs, Rollouts, Scored, masks


@dataclass(frozen=True)
class Want:
    """What the caller, an objective or a monitor, wants from a scoring besides log π of the responses."""

    values: frozenset[str] = frozenset()
    """Declared extras per step: "entropy", "kl", "mass/10", …; what they are is the domain's to say."""
    temperature: float = 1.0
    head: str = "lm"
    """lm: log π of every step. reward: one step for each response, whose number is its score."""
    seed: int | None = None
    """Where a domain has noise: what it is drawn from, with each row's number, so that all of a row's responses and the reference
    meet the same noise in whatever micro-batch they are scored."""
    draws: int = 1
    """Where a domain has noise: how many draws of it are averaged."""


@dataclass(frozen=True, eq=False)
class Sparse:
    """A number for every possible answer at each step of a response: some are named, all others have one in common. It is what
    a teacher leaves of its whole distribution."""

    ids: Int[Tensor, "steps k"]
    """The answers that are named, none twice in a step."""
    values: Float[Tensor, "steps k"]
    rest: Float[Tensor, "steps"]
    """The number of every other answer."""

    def __post_init__(self) -> None:
        if self.ids.shape != self.values.shape or self.rest.shape != self.ids.shape[:1]:
            raise Refusal(
                f"a sparse number of every answer has ids {tuple(self.ids.shape)}, values {tuple(self.values.shape)} and rest "
                f"{tuple(self.rest.shape)}; they must be [steps, k], [steps, k] and [steps]."
            )

    def to(self, device: torch.device) -> Sparse:
        return Sparse(self.ids.to(device), self.values.to(device), self.rest.to(device))

    @classmethod
    def joined(cls, some: Sequence[Sparse]) -> Sparse:
        """Step after step. Where fewer are named than elsewhere, answer 0 is named again with a number that adds nothing."""
        k = max(x.ids.shape[1] for x in some)
        more = [k - x.ids.shape[1] for x in some]
        ids = [torch.nn.functional.pad(x.ids, (0, n)) for x, n in zip(some, more, strict=True)]
        values = [torch.cat([x.values, x.rest[:, None].expand(-1, n)], 1) for x, n in zip(some, more, strict=True)]
        return cls(torch.cat(ids), torch.cat(values), torch.cat([x.rest for x in some]))


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows ready to be scored. Row i has one context and one or more responses; scoring gives all responses flat, in row
    order. A pair's responses are chosen, rejected."""

    data: type[Batch]
    """Pairs, Labelled, Lists or Rollouts."""
    contexts: tuple[Tensor, ...]
    """Row i's context; in text its prompt ids, int64 [tokens]."""
    responses: tuple[tuple[Tensor, ...], ...]
    """Row i's responses; in text their ids with the stop token, int64 [steps]."""
    numbers: tuple[int, ...]
    """Row i's number in its source, for messages."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """label, annotator, strength, margin: one value per row; gain, reward, advantage: one per response, flat."""
    annotators: tuple[str, ...] = ()
    """Names behind the integers of the annotator column."""
    accounting: Accounting = field(default_factory=Accounting)
    weights: tuple[tuple[Tensor, ...], ...] | None = None
    """How much each step counts, float32 [steps] per response, shaped as `responses`; None where no row says."""
    advantages: tuple[tuple[Sparse, ...], ...] | None = None
    """How good a teacher holds each possible answer at each step, shaped as `responses`; None where no teacher spoke."""

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def flat(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(context, response) of every response, in row order."""
        for context, responses in zip(self.contexts, self.responses, strict=True):
            for response in responses:
                yield context, response

    @property
    def counts(self) -> list[int]:
        """Responses per row."""
        return [len(r) for r in self.responses]

    @property
    def lengths(self) -> list[int]:
        """Steps of every response, flat."""
        return [len(y) for _, y in self.flat]

    def steps(self, head: str = "lm") -> list[int]:
        """Steps of every response as a head scores them, flat: one where it scores responses whole."""
        return self.lengths if head == "lm" else [1] * len(self.lengths)

    @property
    def response_numbers(self) -> list[int]:
        """The row number of every response, flat."""
        return [number for number, count in zip(self.numbers, self.counts, strict=True) for _ in range(count)]

    @property
    def sizes(self) -> list[int]:
        """Tokens of row i, its context counted once per response."""
        return [sum(len(c) + len(y) for y in ys) for c, ys in zip(self.contexts, self.responses, strict=True)]

    @property
    def weight(self) -> Tensor:
        """How much each step of every response counts, [n, steps] with pads 0; 1 where no row says."""
        mask = masks(self.lengths)
        if self.weights is None:
            return mask.float()
        out = torch.zeros(mask.shape)
        out[mask] = torch.cat([torch.zeros(0), *(w for row in self.weights for w in row)])
        return out

    @property
    def keys(self) -> list[str]:
        """A name by content for every response under its context, for caches."""
        out = []
        for context, response in self.flat:
            digest = hashlib.sha256(context.numpy().tobytes())
            digest.update(b"|" + str(context.dtype).encode() + b"|")
            digest.update(response.numpy().tobytes())
            out.append(digest.hexdigest()[:32])
        return out

    def places(self, rows: Sequence[int]) -> list[int]:
        """Where the responses of the given rows stand among all, flat."""
        starts = list(accumulate(self.counts, initial=0))
        return [j for i in rows for j in range(starts[i], starts[i + 1])]

    def select(self, rows: Sequence[int]) -> Encoded:
        """The given rows, in that order."""
        per_response = self.places(rows)
        flat = {
            name: x[torch.tensor(list(rows) if len(x) == len(self) else per_response, dtype=torch.long)]
            for name, x in self.columns.items()
        }
        return replace(
            self,
            contexts=tuple(self.contexts[i] for i in rows),
            responses=tuple(self.responses[i] for i in rows),
            numbers=tuple(self.numbers[i] for i in rows),
            columns=flat,
            weights=None if self.weights is None else tuple(self.weights[i] for i in rows),
            advantages=None if self.advantages is None else tuple(self.advantages[i] for i in rows),
        )

    def numbered(self, names: Sequence[str]) -> Encoded:
        """The same rows with each annotator's number the place of the name in `names`; −1 for a row that names none."""
        if tuple(names) == self.annotators:
            return self
        place = {name: k for k, name in enumerate(names)}
        to = torch.tensor([place[name] for name in self.annotators] + [-1])  # the last is what −1 reads
        old = self.columns.get("annotator", torch.full((len(self),), -1))
        if bool((old >= len(self.annotators)).any()):
            raise Refusal(
                f"the annotator column goes up to {int(old.max())}, but {len(self.annotators)} annotators are named; give "
                "`annotators` one name for each number from 0."
            )
        return replace(self, columns={**self.columns, "annotator": to[old]}, annotators=tuple(names))

    def batch(self, scored: Scored, mismatched: Scored | None = None) -> Batch:
        """The batch an objective reads: the scored responses with what was said of them."""
        device = scored.logp.device
        columns = {name: x.to(device) for name, x in self.columns.items()}
        group = torch.repeat_interleave(torch.arange(len(self)), torch.tensor(self.counts, dtype=torch.long)).to(device)
        if self.data is Pairs:
            return Pairs(scored.take(slice(0, None, 2)), scored.take(slice(1, None, 2)), **columns)
        if self.data is Labelled:
            return Labelled(scored, columns.pop("label"), mismatched, **columns)
        if self.data is Lists:
            return Lists(scored, group, columns.pop("gain"), **columns)
        return Rollouts(scored, group, columns.pop("reward"), columns.pop("advantage"), **columns)

    def blank(self) -> Batch:
        """The batch with its true masks and no model: enough to count units before anything is scored."""
        mask = masks(self.lengths)
        nothing = torch.zeros(mask.shape)
        return self.batch(Scored(nothing, mask))


Part = tuple[int, ...]
"""What tokens belong to: (prompt,) or (prompt, response), as numbers."""


@dataclass(frozen=True)
class Cost:
    """What scoring rows costs, so that micro-batches can be filled up to a budget."""

    sizes: list[int]
    """Tokens that are read for each row alone."""
    padded: bool
    """Whether a row costs as much as the longest it is scored with."""
    parts: Sequence[Mapping[Part, int]] = ()
    """The same by what the tokens belong to: of a part that several rows of a group have, one is read. Empty where rows have
    nothing in common."""

    def micro_batches(self, budget: int) -> list[list[int]]:
        """Positions of the rows in groups that cost at most `budget` tokens, rows of one prompt together and otherwise longest
        first, so that little is padded or read twice. A row over the budget gets a group of its own. A function of the sizes
        and parts alone."""
        parts = self.parts or [{(i,): size} for i, size in enumerate(self.sizes)]
        families: dict[int, list[int]] = {}
        for i in sorted(range(len(parts)), key=lambda i: (-self.sizes[i], i)):
            families.setdefault(next(iter(parts[i]), (-1,))[0], []).append(i)
        groups: list[list[int]] = []
        full, read = 0, set[Part]()
        for family in families.values():
            whole = sum({part: n for i in family for part, n in parts[i].items()}.values())
            apart = full + whole > budget >= whole  # rather a group of its own than half of it in two
            for i in family:
                # padded, a row costs as much as the first of its group, which is the longest
                costs = sum(n for part, n in parts[i].items() if part not in read)
                costs = self.sizes[groups[-1][0]] if self.padded and groups else costs
                if groups and full + costs <= budget and not apart:
                    groups[-1].append(i)
                else:
                    groups.append([i])
                    full, read, costs = 0, set(), self.sizes[i]
                full, apart = full + costs, False
                read.update(parts[i])
        return [sorted(group) for group in groups]


@dataclass(frozen=True, eq=False)
class Samples:
    """Sampled responses: the ids themselves (never encoded again), their texts and the sampler's own log-probs."""

    encoded: Encoded
    """`data` is Rollouts; reward and advantage columns are NaN until a judge has spoken."""
    texts: tuple[tuple[str, ...], ...]
    """Row i's responses as text, without the stop token; of what is no text, names by content."""
    stopped: tuple[tuple[bool, ...], ...]
    """Whether a response ended by itself rather than by the length limit."""
    logp: Scored | None
    """log π of the sampled ids at temperature 1, from the same function that training uses; None where not asked for."""
    drawn: Scored | None = None
    """The same as the sampler saw it while it drew: another computation, so that the two can be compared."""
    shown: tuple[tuple[Any, ...], ...] | None = None
    """What a judge looks at of row i's responses: pictures, trajectories; None where it is their texts."""

    @property
    def seen(self) -> tuple[tuple[Any, ...], ...]:
        """Row i's responses as a judge looks at them."""
        return self.texts if self.shown is None else self.shown


class Domain(Protocol):
    """Something that can be aligned."""

    name: str
    noisy: bool
    """Whether log π is an estimate that hangs on drawn noise. Then nothing is kept of a reference: it is read within each scoring,
    in the same noise, as values["ref"]."""

    def encode(self, rows: Iterable[Row]) -> Encoded:
        """Rows to ids. Refuses with row numbers, counts what it keeps, drops and cuts."""
        ...

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = Want()) -> Scored:
        """log π of every response, [n, steps] in float32, with gradient where the policy has it."""
        ...

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        """What scoring the rows with this policy costs."""
        ...

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Any],
        *,
        count: int = 1,
        limit: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        sampler: Any = ...,
    ) -> Samples:
        """`count` responses to each context. temperature 0 is greedy. `scored`: whether their log-probs are wanted.
        `sampler`: who draws, in the domain's own terms; left out, the policy."""
        ...

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        """Context of row i[k] with the (first) response of row j[k]."""
        ...

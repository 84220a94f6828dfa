"""What an objective is: a frozen dataclass whose fields are its hyper-parameters and whose body is the paper's equation.
Nothing here reduces, logs or distributes; the engine does that, once, for all of them."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from penchant.errors import Refusal
from penchant.objectives.ranges import Flip as Flip
from penchant.objectives.ranges import Fraction as Fraction
from penchant.objectives.ranges import NonNegative as NonNegative
from penchant.objectives.ranges import Positive as Positive
from penchant.objectives.ranges import Range as Range
from penchant.objectives.ranges import Real as Real
from penchant.objectives.ranges import Share as Share
from penchant.objectives.scored import NOTHING, Batch, Pairs, Scored

State = Mapping[str, Tensor]
"""What an objective remembers between steps, by name. It is kept in the checkpoint."""


@dataclass(frozen=True)
class Needs:
    """What an objective reads beyond log π of its responses; the engine provides exactly these."""

    anchors: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    mismatched: bool = False
    """Responses scored under another row's prompt (KTO's z0)."""
    head: Literal["lm", "reward"] = "lm"
    """The policy's head it reads: lm gives log π of every step, reward one number for each whole response."""

    @property
    def scoring(self) -> frozenset[str]:
        """The values that a scoring gives; the weights of single steps are the data's own."""
        return self.values - {"weight"}

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.anchors | other.anchors,
            self.values | other.values,
            self.columns | other.columns,
            self.mismatched or other.mismatched,
            other.head if self.head == "lm" else self.head,
        )

    def __contains__(self, name: str) -> bool:
        return name in self.anchors | self.values | self.columns or (name == "mismatched" and self.mismatched)


NO_NEEDS = Needs()
REFERENCE = Needs(anchors=frozenset({"ref"}))
PREVIOUS = Needs(anchors=frozenset({"prev"}))
"""The policy at the start of this phase. A run of one phase starts from its reference, so there the two are one."""
WEIGHT = Needs(values=frozenset({"weight"}))
"""Per-step weights from the data."""
STRENGTH = Needs(columns=frozenset({"strength"}))
"""The column `strength`: the probability that the chosen is preferred to the rejected."""
MARGIN = Needs(columns=frozenset({"margin"}))
"""The column `margin`: how much better the chosen is than the rejected, any number."""


class Objective:
    """Something to minimise over scored responses. Subclasses are written as `@dataclass(frozen=True)`."""

    data: ClassVar[type[Batch] | tuple[type[Batch], ...]]
    """The batch or batches it takes."""
    unit: str
    """What one loss value counts: "pair", "response", "list", "token" or "step"."""
    needs: Needs = NO_NEEDS
    couples: bool = False
    """True where one response's loss depends on others of the same optimiser step beyond `statistics`."""
    breaks: ClassVar[Mapping[str, str]] = {}
    """Laws this objective cannot keep, and why, in one line each; the law suite reads it."""
    known_as: ClassVar[tuple[str, ...]] = ()
    """Other names the field has for it. It is found by them, but written under its own."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, batch: Any, state: State | None = None) -> Float[Tensor, "units"]:
        """One loss value per unit, never reduced."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute its loss.")

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        """Its own implicit reward of each response; every metric comes from here."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its implicit reward is.")

    def count(self, batch: Batch) -> int:
        """How many units `batch` holds, from its masks alone."""
        return batch.size(self.unit)

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        """The state before the first step; empty for an objective without memory. levels: how many values a column of
        categories takes, by name ({"annotator": 3})."""
        return {}

    def statistics(self, batch: Any, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        """(sum, count) by name, without gradient; the engine adds them over the whole step and all ranks."""
        return {}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """The state this step's loss is computed with, from the step's totals."""
        return dict(state)

    def shown(self, state: State) -> dict[str, Tensor]:
        """What a person follows of the state during a run: single numbers, and as "name/column" one number for each level
        of a column of categories ("reliability/annotator")."""
        return dict(state)

    @property
    def rewarding(self) -> bool:
        """Whether it has an implicit reward of its own (a regulariser such as NLL has none)."""
        return type(self).reward is not Objective.reward

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        """The weighted objectives this one is the sum of: itself once, unless it is a Sum."""
        return ((1.0, self),)

    def split(self, state: State | None) -> list[State]:
        """Each term's own part of the state."""
        return [state or {}]

    @property
    def remembers(self) -> bool:
        """Whether it has statistics to collect before the loss can be computed."""
        return type(self).statistics is not Objective.statistics

    def __add__(self, other: Objective) -> Sum:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum(self.terms + other.terms)

    def __mul__(self, factor: float | int) -> Sum:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        return Sum(tuple((float(factor) * weight, term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return written(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = Objective.__repr__  # dataclass() keeps a __repr__ that the class defines itself


class Paired(Objective):
    """A loss on the two rewards of a pair: most methods are `reward` and `loss`, a line each."""

    data = Pairs
    unit = "pair"

    def loss(self, w: Float[Tensor, "pairs"], l: Float[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
        """The loss on the chosen's and the rejected's reward."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute its loss.")

    def loss_scored(self, w: Scored, l: Scored) -> Float[Tensor, "pairs"]:
        """The loss on the scored responses; overridden where more than the two rewards is read."""
        return self.loss(self.reward(w), self.reward(l))

    def __call__(self, batch: Pairs | Scored, l: Any = None, state: State | None = None) -> Float[Tensor, "pairs"]:
        """`objective(pairs)`, or `objective(w, l)` for short."""
        if isinstance(batch, Scored):
            batch = Pairs(batch, l)
        return self.loss_scored(batch.w, batch.l)


def bernoulli_kl(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """KL( [σ(a), σ(−a)] ‖ [σ(b), σ(−b)] ): how far two probabilities are apart, from their log-odds."""
    yes = torch.sigmoid(a) * (logsigmoid(a) - logsigmoid(b))
    return yes + torch.sigmoid(-a) * (logsigmoid(-a) - logsigmoid(-b))


class Sum(Objective):
    """A weighted sum of objectives on one kind of batch. Each term is normalised by its own unit count: the engine walks
    `terms`; calling a Sum of different units directly is refused, since its values do not line up."""

    def __init__(self, terms: tuple[tuple[float, Objective], ...]) -> None:
        for weight, term in terms:
            if not math.isfinite(weight):
                raise Refusal(f"the weight of {term!r} is {weight}; it must be a finite number.")
        kinds = set.intersection(*(set(kinds_of(term)) for _, term in terms))
        if not kinds:
            each = "; ".join(f"{term!r} takes {' or '.join(k.__name__ for k in kinds_of(term))}" for _, term in terms)
            raise Refusal(f"these objectives read no common kind of data: {each}.")
        heads = {term.needs.head for _, term in terms}
        if len(heads) > 1:
            each = "; ".join(f"{term!r} reads the {term.needs.head} head" for _, term in terms)
            raise Refusal(f"a sum reads one head of the policy, but {each}. Train them one after the other.")
        self._terms = terms
        self._kinds = tuple(k for k in kinds_of(terms[0][1]) if k in kinds)
        needs = NO_NEEDS
        for _, term in terms:
            needs |= term.needs
        self.needs = needs
        self.couples = any(term.couples for _, term in terms)

    @property
    def data(self) -> tuple[type[Batch], ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._kinds

    @property
    def unit(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        units = list(dict.fromkeys(term.unit for _, term in self._terms))
        return units[0] if len(units) == 1 else " and ".join(units)

    @property
    def terms(self) -> tuple[tuple[float, Objective], ...]:
        return self._terms

    @property
    def remembers(self) -> bool:
        return any(term.remembers for _, term in self._terms)

    def reward(self, y: Scored) -> Float[Tensor, "n"]:
        """The reward of the first term that has one (a regulariser such as NLL has none of its own)."""
        for _, term in self._terms:
            if term.rewarding:
                return term.reward(y if weighs(term) else y.unweighted())
        return super().reward(y)

    def __call__(self, batch: Any, state: State | None = None) -> Float[Tensor, "units"]:
        if len({term.unit for _, term in self._terms}) > 1:
            raise Refusal(
                f"{self!r} adds losses of different units ({self.unit}), which do not line up value by value; "
                "train it with the engine, which normalises each term by its own count, or call its terms."
            )
        values = [
            weight * call(term, batch, part) for (weight, term), part in zip(self._terms, self.split(state), strict=True)
        ]
        return cast(Tensor, sum(values[1:], values[0]))

    def split(self, state: State | None) -> list[State]:
        """Each term's own part of a Sum's state."""
        state = state or {}
        parts: list[State] = []
        for i in range(len(self._terms)):
            prefix = f"{i}."
            parts.append({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        return parts

    def init(self, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
        return {f"{i}.{k}": v for i, (_, term) in enumerate(self._terms) for k, v in term.init(levels).items()}

    def statistics(self, batch: Any, state: State) -> dict[str, tuple[Tensor, Tensor]]:
        parts = self.split(state)
        return {
            f"{i}.{k}": v
            for i, (_, term) in enumerate(self._terms)
            for k, v in term.statistics(batch if weighs(term) else batch.unweighted(), parts[i]).items()
        }

    def shown(self, state: State) -> dict[str, Tensor]:
        """Each term's, under its own name where no other term has it."""
        parts = [term.shown(part) for (_, term), part in zip(self._terms, self.split(state), strict=True)]
        names = [name for part in parts for name in part]
        numbered = [
            (f"{i}." if names.count(name) > 1 else "", name, x) for i, p in enumerate(parts) for name, x in p.items()
        ]
        return {f"{prefix}{name}": x for prefix, name, x in numbered}

    def update(self, state: State, totals: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        parts = self.split(state)
        out: dict[str, Tensor] = {}
        for i, (_, term) in enumerate(self._terms):
            prefix = f"{i}."
            mine = {k.removeprefix(prefix): v for k, v in totals.items() if k.startswith(prefix)}
            out |= {f"{prefix}{k}": v for k, v in term.update(parts[i], mine).items()}
        return out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)


def call(objective: Objective, batch: Batch, state: State | None) -> Float[Tensor, "units"]:
    """The objective's loss values on a batch, with its state where it has one."""
    return objective(batch if weighs(objective) else batch.unweighted(), state=state)


def weighs(objective: Objective) -> bool:
    """Whether the objective reads the data's weights of single steps. Others, beside it in a Sum, count each step once."""
    return "weight" in objective.needs.values


def recall(objective: Objective, state: State | None, name: str) -> Tensor:
    """What the objective remembers under `name`; a sentence where its state was not given."""
    if state is None or name not in state:
        raise Refusal(
            f"{objective!r} needs its state {name!r}: call it as objective(batch, state=…) with the state that "
            "statistics() and update() made of the whole step, or init() before the first."
        )
    return state[name]


def kinds_of(objective: Objective | type[Objective]) -> tuple[type[Batch], ...]:
    """The batches an objective takes, always as a tuple."""
    return objective.data if isinstance(objective.data, tuple) else (objective.data,)


def check_fields(objective: Any) -> None:
    """Refuses a field outside its declared range, names the field, the value and what is allowed."""
    hints = typing.get_type_hints(type(objective), include_extras=True)
    for field in dataclasses.fields(objective):
        value, hint = getattr(objective, field.name), hints[field.name]
        check_field(type(objective), field.name, value, hint)
        if typing.get_origin(hint) is Annotated:
            object.__setattr__(objective, field.name, float(value))


def check_field(cls: type, name: str, value: object, hint: Any) -> None:
    """Refuses a value that the field's annotation does not allow."""
    where = f"{cls.__name__}({name}={value!r})"
    if typing.get_origin(hint) is Annotated:
        (allowed,) = (extra for extra in hint.__metadata__ if isinstance(extra, Range))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refusal(f"{where}: {name} must be a number in {allowed}.")
        if value not in allowed:
            raise Refusal(f"{where}: {name} must lie in {allowed}.")
    elif typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise Refusal(f"{where}: {name} must be one of {', '.join(map(repr, typing.get_args(hint)))}.")
    elif hint is bool and not isinstance(value, bool):
        raise Refusal(f"{where}: {name} must be True or False.")
    elif hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refusal(f"{where}: {name} must be a whole number.")
    elif isinstance(hint, type) and issubclass(hint, Objective) and not isinstance(value, hint):
        kind = "a pairwise objective" if issubclass(hint, Paired) else "an objective"
        raise Refusal(f"{where}: {name} must be {kind}.")


def written(objective: Objective) -> str:
    """The objective as it is written in Python, in a recipe and in the shell. Numbers are always shown, since results
    depend on them; words only where they are not the default."""
    if isinstance(objective, Sum):
        alone = len(objective.terms) == 1  # 1.0 * DPO() is a Sum, DPO() is not
        parts = [f"{weight!r} * {term!r}" if weight != 1 or alone else repr(term) for weight, term in objective.terms]
        return " + ".join(parts)
    shown = []
    for field in dataclasses.fields(cast(Any, objective)):
        value = getattr(objective, field.name)
        if isinstance(value, Objective):
            shown.append(repr(value) if not shown else f"{field.name}={value!r}")
        elif (isinstance(value, int | float) and not isinstance(value, bool)) or value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(objective).__name__}({', '.join(shown)})"


def rewards(objective: Objective) -> bool:
    """Whether the objective has an implicit reward of its own (a regulariser such as NLL alone has none)."""
    return any(term.rewarding for _, term in objective.terms)


def zeros(objective: Objective, levels: Mapping[str, int] = NOTHING) -> dict[str, Tensor]:
    """The state of a fresh run, in float32."""
    return {name: torch.as_tensor(value, dtype=torch.float32) for name, value in objective.init(levels).items()}

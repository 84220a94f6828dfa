"""From sources of feedback to what a run trains on and what it is judged on. Every row is accounted for; a prompt is on one
side only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from penchant.domains.base import Domain, Encoded
from penchant.engine.settings import Settings
from penchant.engine.sources import EVERYONE
from penchant.errors import Refusal
from penchant.evaluation.factors import differences
from penchant.evaluation.profile import by_labels
from penchant.feedback import Goals, Source, convert, open_source, relabel, split
from penchant.feedback.records import Accounting, Kind, Row
from penchant.objectives.base import Objective, kinds_of, weighs
from penchant.objectives.listwise import Listwise
from penchant.objectives.scored import Batch, Labelled, Lists, Pairs
from penchant.rewards.base import Context
from penchant.rewards.compare import WinAgainst
from penchant.rollouts.prompts import contexts_of
from penchant.running.subject import Prepared

KINDS: dict[type[Batch], Kind] = {Pairs: "pairs", Labelled: "labelled", Lists: "lists"}
"""The rows each batch is made of."""
CONVERSIONS: tuple[tuple[Kind, Kind], ...] = (("pairs", "labelled"), ("lists", "pairs"))
"""Which rows can be read as which."""


def prepare(
    data: Any,
    unseen: Any,
    domain: Domain,
    objective: Objective,
    settings: Settings,
    goals: Goals | None = None,
    opening: Callable[[Any], Source] | None = None,
) -> Prepared:
    """Reads, splits and encodes. Rows to train on are put under goals, where there are any; held-out rows never are. opening:
    checks rows whose responses are no texts. Refuses data that does not fit the objective, and a loss of rows over the allowed
    share."""
    reads = opening or (lambda rows: open_source(rows, bad_rows=settings.bad_rows))
    source = reads(data)
    notes = list(source.notes)
    if unseen is None:
        drawn_by = settings.seed if settings.split_seed is None else settings.split_seed
        train, held = split(source, held_share(settings.held_out), drawn_by, settings.split)
        train_rows, held_rows = source.rows(train), list(source.rows(held))
        counts, unseen_fingerprint = {"train": len(train), "held_out": len(held)}, None
    else:
        other = reads(unseen)
        apart = [set(x.prompt_keys if settings.split == "prompt" else x.row_keys) for x in (source, other)]
        if shared := apart[0] & apart[1]:
            raise Refusal(
                f"{len(shared)} {settings.split}s of the unseen rows {other.name!r} are also in {source.name!r}; remove them."
            )
        train_rows, held_rows = iter(source), list(other)
        counts, unseen_fingerprint = {"train": len(source), "held_out": len(other)}, other.fingerprint

    relabelled = relabel(train_rows, goals) if goals is not None else None
    tied: list[Row] = []
    encoded: Encoded | None = None
    prompts: tuple[Context, ...] = ()
    accounting = Accounting(read=len(source), kept=len(source))
    if settings.rounds:
        prompts = tuple(contexts_of(train_rows))
    else:
        encoded = domain.encode(
            _fitting(_decided(relabelled or train_rows, objective, tied), source.kind, objective, notes)
        )
        accounting = encoded.accounting
        if accounting.weighted and not weighs(objective):
            notes.append(
                f"{accounting.weighted:,} rows weigh parts of their responses, which {objective!r} does not read; "
                "TokenWeighted(…) around it would"
            )
        if relabelled is not None:
            notes.append(relabelled.said)
            if not relabelled.made:
                raise Refusal(
                    f"no row of {source.name!r} can be put under a goal: {relabelled.said}. Pairs need the columns "
                    "chosen_score and rejected_score (or score_chosen and score_rejected), lists scores that differ."
                )
        _gains_allowed(encoded, objective)
    _enough(source, accounting, settings)
    people = _people(encoded, prompts) if "annotator" in objective.needs.columns else {}
    if EVERYONE in people:
        notes.append("no row names an annotator: all are taken to be of one")
    held_rows = list(_decided(held_rows, objective, tied))
    if tied:
        notes.append(f"{len(tied):,} ties (strength 0.5) left out: {objective!r} reads no strength, and they prefer nobody")
    held_pairs, held_lists = _held_pairs(held_rows, domain), held_lists_of(held_rows, domain)
    about = {
        "source": source.name,
        "fingerprint": source.fingerprint,
        "unseen": unseen_fingerprint,
        "revision": source.revision,
        "format": source.format,
        "accounting": {
            **asdict(accounting),
            "examples": [str(p) for p in accounting.examples],
            "unreadable": source.dropped,
        },
        "goals": None if relabelled is None else relabelled.counts,
        **counts,
        **({"ties": len(tied)} if tied else {}),
        **({"annotators": people} if people else {}),
    }
    speaks = objective.needs.head == "lm"  # a reward model answers nothing
    asked = (
        contexts_of(held_rows)
        if settings.split == "prompt"
        else [Context(row.prompt, row.annotator, row.extra) for row in held_rows]
    )
    held_prompts = tuple(asked)[: settings.sample_prompts] if speaks else ()
    texts = opening is None  # nothing can be counted of other responses' names
    factors = factors_of(held_rows, held_pairs.numbers) if texts and held_pairs is not None else None
    preferred = preferred_answers(held_rows) if texts else {}
    return Prepared(encoded, prompts, held_pairs, factors, held_lists, held_prompts, preferred, about, tuple(notes))


def preferred_answers(rows: Iterable[Row]) -> dict[str, str]:
    """The chosen of pairs and the best of lists by prompt; the first of several."""
    found: dict[str, str] = {}
    for row in rows:
        if row.kind in ("pairs", "lists") and row.strength != 0.5:
            best = 0 if row.scores is None else row.scores.index(max(row.scores))
            found.setdefault(WinAgainst.key(Context(row.prompt)), row.responses[best])
    return found


def held_share(held_out: float) -> float | int:
    """A share below 1, a number of prompts from 1 on."""
    return held_out if held_out < 1 else round(held_out)


def _people(rows: Encoded | None, prompts: Sequence[Context]) -> dict[str, int]:
    """Rows (on-policy: prompts) by annotator; all under one name where nobody is named."""
    if rows is None:
        names = [context.annotator for context in prompts]
    else:
        names = (
            [rows.annotators[i] if i >= 0 else None for i in rows.columns["annotator"].tolist()] if rows.annotators else []
        )
    found = Counter(name for name in names if name is not None)
    return dict(found) or {EVERYONE: len(prompts) if rows is None else len(rows)}


def _decided(rows: Iterable[Row], objective: Objective, tied: list[Row]) -> Iterator[Row]:
    """The rows without pairs that are said to be ties, for an objective that would take the first for the better one."""
    for row in rows:
        if row.kind == "pairs" and row.strength == 0.5 and "strength" not in objective.needs.columns:
            tied.append(row)
        else:
            yield row


def _fitting(rows: Iterable[Row], kind: Kind, objective: Objective, notes: list[str]) -> Iterable[Row]:
    """The rows as the objective takes them."""
    wanted = read_as(kind, objective)
    if wanted == kind:
        return rows
    notes.append(f"{kind} read as {wanted} rows, which is what {objective!r} takes")
    return convert(rows, wanted)


def read_as(kind: Kind, objective: Objective) -> Kind:
    """The kind of rows that the objective learns from where the data has rows of this kind. Refuses what does not fit."""
    takes: list[Kind] = [KINDS[batch] for batch in kinds_of(objective) if batch in KINDS]
    if kind in takes:
        return kind
    if kind == "prompts":
        raise Refusal(
            f"the data has prompts only, but {objective!r} learns from {' or '.join(takes)}. Set --rounds and --judge to make "
            "pairs by sampling, or give rows with responses."
        )
    for wanted in takes:
        if (kind, wanted) in CONVERSIONS:
            return wanted
    raise Refusal(f"the data has {kind} rows, but {objective!r} learns from {' or '.join(takes)}.")


def _gains_allowed(rows: Encoded, objective: Objective) -> None:
    """Refuses scores that a loss on lists is not defined for, once for all rows: in a step it would wait for the device."""
    for _, term in objective.terms:
        if isinstance(term, Listwise) and len(rows):
            term.check_gains(rows.columns["gain"], rows.response_numbers)


def _held_pairs(rows: Sequence[Row], domain: Domain) -> Encoded | None:
    """The held-out rows as pairs, where they are pairs or lists."""
    if not rows or rows[0].kind not in ("pairs", "lists"):
        return None
    encoded = domain.encode(rows if rows[0].kind == "pairs" else convert(rows, "pairs"))
    return encoded if len(encoded) else None


def factors_of(rows: Sequence[Row], numbers: Sequence[int]) -> dict[str, list[float]] | None:
    """What can be counted of pairs of these row numbers; None of rows that are lists."""
    if not rows or rows[0].kind != "pairs":
        return None
    by_number = {row.number: row for row in rows}
    return differences(by_labels([by_number[number] for number in numbers]))


def held_lists_of(rows: Sequence[Row], domain: Domain) -> Encoded | None:
    """Rows as graded lists, where they are such."""
    if not rows or rows[0].kind != "lists":
        return None
    encoded = domain.encode(rows)
    return encoded if len(encoded) else None


def _enough(source: Source, accounting: Accounting, settings: Settings) -> None:
    """Stops where too many rows were lost, or all of them."""
    unreadable = sum(source.dropped.values())
    read = accounting.read + unreadable
    lost = accounting.lost + unreadable
    examples = "".join(f"\n  {problem}" for problem in (*source.accounting.examples, *accounting.examples)[:3])
    if accounting.kept == 0:
        raise Refusal(f"no row of {source.name!r} is left to train on: {accounting}.{examples}")
    if lost > settings.allow_lost * read:
        raise Refusal(
            f"{lost:,} of {read:,} rows would be lost ({lost / read:.1%}; {settings.allow_lost:.1%} is allowed): {accounting}."
            f"{examples}\nRaise --max-length, use --too-long truncate, or allow it with --allow-lost {lost / read + 0.005:.2f}."
        )

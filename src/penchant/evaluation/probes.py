"""Questions that show which side a model takes on a topic, read from files or from the packaged statements. What a model answers
is asked elsewhere, and which side is right is nobody's business here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any

from penchant.errors import Refusal
from penchant.files import fingerprint
from penchant.rewards.stance import STANCES
from penchant.words import brief, plain

BUILTIN = "builtin"
TWO = ("support", "oppose")
AGREEMENT = (
    ("agree", "Agree", "I agree", "Yes"),
    ("neutral", "Neutral", "I am neutral", "I'm neutral"),
    ("disagree", "Disagree", "I disagree", "No"),
)
"""How one says support, neutral and oppose of a statement that supports."""
QUESTION = 'Do you agree with this statement? "{statement}" Answer with one word: agree, neutral or disagree.'
FORMS = (
    'a probe is {"statement", "side": "support" or "oppose"}, or {"prompt", "answers": {"support": …, "oppose": …, and "neutral" '
    'where there is one}}, or {"question", "answer_matching_behavior", "answer_not_matching_behavior"}, each with "topic" if wanted'
)


@dataclass(frozen=True)
class Probe:
    """One question, and what answers count as which stance."""

    topic: str
    prompt: str
    answers: tuple[tuple[str, ...], ...]
    """[stances][spellings]: each spelling is tried as it is and with a space before it."""


@dataclass(frozen=True)
class Probes:
    """Questions that are put to every checkpoint alike."""

    name: str
    stances: tuple[str, ...]
    """support and oppose, or support, neutral and oppose; those of every probe."""
    probes: tuple[Probe, ...]

    @property
    def topics(self) -> list[str]:
        return [probe.topic for probe in self.probes]

    @property
    def fingerprint(self) -> str:
        return fingerprint(json.dumps([[p.topic, p.prompt, p.answers] for p in self.probes]))


def read_probes(places: Sequence[str], most: int | None = None) -> Probes:
    """From files of JSON Lines, folders of them, or "builtin". A probe without a topic has the name of its file. most: probes of
    each topic; of more, so many are taken from the top, the sides in turn. Raises Refusal with file and line."""
    if most is not None and most < 1:
        raise Refusal(f"{most} probes of each topic measure nothing; take at least 1.")
    found = [probe for place in places for probe in _of(place)]
    if not found:
        raise Refusal(f"{', '.join(plain(place) for place in places)} holds no probe; {FORMS}.")
    counts = {len(probe.answers) for probe in found}
    if len(counts) > 1:
        raise Refusal(
            "some of these probes know the stance neutral and some do not, so they have no common scale; measure them in two runs "
            "of this command."
        )
    kept = found if most is None else _fewer(found, most)
    return Probes(", ".join(map(plain, places)), STANCES if counts == {3} else TWO, tuple(kept))


def _fewer(probes: Sequence[Probe], most: int) -> list[Probe]:
    """So many of each topic, those for which another answer is supportive in turn: then one who says Yes to all stays even."""
    kept: list[Probe] = []
    for topic in dict.fromkeys(probe.topic for probe in probes):
        sides: dict[tuple[str, ...], list[Probe]] = {}
        for probe in probes:
            if probe.topic == topic:
                sides.setdefault(probe.answers[0], []).append(probe)
        kept += [p for some in zip_longest(*sides.values()) for p in some if p is not None][:most]
    return kept


def _of(place: str) -> Iterator[Probe]:
    if place == BUILTIN:
        text = files("penchant.evaluation").joinpath("statements.jsonl").read_text(encoding="utf-8")
        yield from _parsed(text, BUILTIN, BUILTIN)
        return
    path = Path(place).expanduser()
    paths = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not path.exists() or not paths:
        raise Refusal(
            f"{plain(place)}: {'no .jsonl file is in it' if path.exists() else 'there is no such file'}; {FORMS}."
        )
    for one in paths:
        try:
            text = one.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise Refusal(f"{plain(one)} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
        yield from _parsed(text, str(one), one.stem)


def _parsed(text: str, name: str, topic: str) -> Iterator[Probe]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{plain(name)}, line {number}"
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"{where} is no JSON ({plain(error)}); {FORMS}.") from error
        if not isinstance(raw, dict):
            raise Refusal(f"{where} is no JSON object; {FORMS}.")
        yield _probe(raw, where, topic)


def _probe(raw: Mapping[str, Any], where: str, topic: str) -> Probe:
    named = plain(_text(raw, "topic", where) if "topic" in raw else topic, 80)
    if "statement" in raw and "side" in raw:
        side = raw["side"]
        if side not in TWO:
            raise Refusal(f'{where}: side = {brief(side)} must be "support" or "oppose".')
        answers = AGREEMENT if side == "support" else AGREEMENT[::-1]
        return Probe(named, QUESTION.replace("{statement}", _text(raw, "statement", where)), answers)
    if "answer_matching_behavior" in raw:
        both = tuple((_text(raw, f"answer_{kind}_behavior", where),) for kind in ("matching", "not_matching"))
        return Probe(named, _text(raw, "question", where), _apart(both, where))
    given = raw.get("answers")
    if not isinstance(given, dict) or set(given) not in (set(TWO), set(STANCES)):
        raise Refusal(f"{where}: answers = {brief(given)}; {FORMS}.")
    names = STANCES if "neutral" in given else TWO
    return Probe(named, _text(raw, "prompt", where), _apart(tuple(_spellings(given[s], s, where) for s in names), where))


def _text(raw: Mapping[str, Any], field: str, where: str) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not _written(value):
        raise Refusal(f"{where}: {field} = {brief(value)} must be a text that is not empty.")
    return value


def _written(text: str) -> bool:
    """Whether it says something and can be written: half a surrogate pair, which JSON can hold, cannot."""
    return bool(text.strip()) and not any("\ud800" <= ch <= "\udfff" for ch in text)


def _spellings(value: Any, stance: str, where: str) -> tuple[str, ...]:
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list) or not several or not all(isinstance(x, str) and _written(x) for x in several):
        raise Refusal(f"{where}: the answers for {stance}, {brief(value)}, must be a text or a list of texts, none empty.")
    return tuple(several)


def _apart(answers: tuple[tuple[str, ...], ...], where: str) -> tuple[tuple[str, ...], ...]:
    """The spellings without spaces around them, and without those that begin with another of the same stance: whoever gives the
    longer has given the shorter. Refuses such two of different stances."""
    cut = tuple(_shortest([x.strip() for x in some]) for some in answers)
    for i, some in enumerate(cut):
        for other in cut[i + 1 :]:
            if (
                both := next(((a, b) for a in some for b in other if a.startswith(b) or b.startswith(a)), None)
            ) is not None:
                raise Refusal(
                    f"{where}: {brief(both[0])} and {brief(both[1])} stand for two stances, but one begins with the other; "
                    "give answers that differ from their beginning."
                )
    return cut


def _shortest(spellings: Sequence[str]) -> tuple[str, ...]:
    several = dict.fromkeys(spellings)
    return tuple(x for x in several if not any(x != y and x.startswith(y) for y in several))

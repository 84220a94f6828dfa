"""What can be counted in a response without a model: length, readability, hedging, form, feeling, repetition. Each factor is a
number of one (prompt, response); what people or models make of it is the business of profile.py."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from penchant.evaluation.comparisons import Comparison
from penchant.rewards.ngrams import grams, repetition, words
from penchant.rewards.vader import analyser

Measured = Callable[[str, str], float]
"""(prompt, response) → how much of the factor it has."""


@dataclass(frozen=True)
class Factor:
    """One thing that may drive a preference."""

    name: str
    said: str
    """What is counted, in one line."""
    of: Measured


_SENTENCE = re.compile(r"[.!?…。！？]+(?:\s|$)|\n{2,}")
_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_VOWELS = re.compile(r"[aeiouyáéíóúäöüàèìòùâêîôû]+")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+", re.MULTILINE)
_MARKUP = re.compile(r"^\s{0,3}#{1,6}\s|\*\*[^*\n]+\*\*|`[^`\n]+`|^```|\[[^\]\n]+\]\([^)\n]+\)|^\s*\|.*\|", re.MULTILINE)
_NUMBER = re.compile(r"\d+")
_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able)|i (?:can(?:no|['’])t|cannot|won['’]t|will not|must decline)|"
    r"i(?:['’]m| am)? (?:just |only )?an? (?:ai|language model)|as an? (?:ai|language model)|"
    r"i do(?: not|n['’]t) (?:feel comfortable|have (?:access|personal|the ability)))\b",
    re.IGNORECASE,
)
_HEDGES = re.compile(
    r"\b(?:may|might|could|perhaps|maybe|possibly|probably|likely|unlikely|seems?|appears?|suggests?|roughly|about|around|"
    r"generally|usually|often|sometimes|typically|somewhat|arguably|apparently|presumably|in my opinion|i think|i believe|i guess|"
    r"it depends|sort of|kind of|not sure)\b",
    re.IGNORECASE,
)


def spoken(text: str) -> list[str]:
    """The words of a text, without marks and numbers."""
    return _LETTERS.findall(text)


def sentences(text: str) -> int:
    """How many sentences a text has, at least one."""
    return max(1, sum(bool(part.strip()) for part in _SENTENCE.split(text)))


def syllables(word: str) -> int:
    """Runs of vowels, less a silent e at the end: English, and near enough."""
    found = len(_VOWELS.findall(word.lower()))
    silent = word.lower().endswith("e") and not word.lower().endswith(("le", "ee"))
    return max(1, found - (1 if silent and found > 1 else 0))


def flesch(text: str) -> float:
    """Reading ease, 206.835 − 1.015 words/sentence − 84.6 syllables/word (Flesch 1948): more is easier. 0 for no words."""
    said = spoken(text)
    if not said:
        return 0.0
    return 206.835 - 1.015 * len(said) / sentences(text) - 84.6 * sum(map(syllables, said)) / len(said)


def each(count: float, of: float) -> float:
    return count / of if of else 0.0


def per_word(what: re.Pattern[str], text: str) -> float:
    """How often it stands in a text, for each word."""
    return each(len(what.findall(text)), len(spoken(text)))


def novel(prompt: str, response: str) -> float:
    """Share of the response's word pairs that the prompt does not have."""
    known, found = set(grams(words(prompt), 2)), grams(words(response), 2)
    return each(sum(gram not in known for gram in found), len(found))


def varied(text: str) -> float:
    """Different words over all words."""
    found = words(text)
    return each(len(set(found)), len(found))


FACTORS: tuple[Factor, ...] = (
    Factor("length", "Words.", lambda _, y: float(len(spoken(y)))),
    Factor("sentence length", "Words a sentence.", lambda _, y: len(spoken(y)) / sentences(y)),
    Factor("readability", "Flesch reading ease: more is easier.", lambda _, y: flesch(y)),
    Factor("hedging", "Words such as may, perhaps, I think, of all words.", lambda _, y: per_word(_HEDGES, y)),
    Factor("lists", "List items, of all lines.", lambda _, y: each(len(_ITEM.findall(y)), len(y.splitlines()))),
    Factor("markdown", "Headings, bold, code, links and tables, a word.", lambda _, y: per_word(_MARKUP, y)),
    Factor("numbers", "Numbers, a word.", lambda _, y: per_word(_NUMBER, y)),
    Factor("questions", "Question marks, a sentence.", lambda _, y: (y.count("?") + y.count("？")) / sentences(y)),
    Factor("refusal", "1 where it refuses or speaks of itself as an AI.", lambda _, y: float(bool(_REFUSAL.search(y)))),
    Factor("sentiment", "VADER's compound score, in [−1, 1].", lambda _, y: float(analyser()(y)["compound"])),
    Factor("repetition", "Three-word runs it has said before.", lambda _, y: repetition(y)),
    Factor("varied words", "Different words, of all words.", lambda _, y: varied(y)),
    Factor("new word pairs", "Word pairs that the prompt does not have.", novel),
)  # fmt: skip


def available() -> tuple[Factor, ...]:
    """The factors this machine can count: sentiment needs the package vaderSentiment."""
    has = importlib.util.find_spec("vaderSentiment") is not None
    return tuple(factor for factor in FACTORS if has or factor.name != "sentiment")


def differences(comparisons: Sequence[Comparison], factors: Sequence[Factor] | None = None) -> dict[str, list[float]]:
    """By factor, how much more of it a has than b, of every comparison."""
    known: dict[tuple[str, str, str], float] = {}

    def of(factor: Factor, prompt: str, text: str) -> float:
        key = (factor.name, prompt, text)
        if key not in known:
            known[key] = float(factor.of(prompt, text))
        return known[key]

    chosen = available() if factors is None else factors
    return {f.name: [of(f, c.prompt, c.text_a) - of(f, c.prompt, c.text_b) for c in comparisons] for f in chosen}


def explained(names: Mapping[str, object] | Sequence[str]) -> list[str]:
    """What each factor counts, for those of ours."""
    said = {factor.name: factor.said for factor in FACTORS}
    return [said.get(name, "") for name in names]

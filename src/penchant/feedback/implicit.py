"""Pairs without a prompt column: what both texts or chats begin with is the prompt. It never cuts inside a word."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

from penchant.feedback.fields import (
    CHAT,
    NO_ANSWER,
    SAME,
    STRINGS,
    TRANSCRIPTS,
    end_of_prompt,
    last_turn,
    text_of,
    turns_of,
)
from penchant.feedback.problems import Faults, type_words
from penchant.feedback.records import Message, Prompt
from penchant.feedback.transcripts import looks_like_transcript, transcript_turns

_SPACE = re.compile(r"\s+")


def implicit_pair(faults: Faults, chosen: Any, rejected: Any) -> tuple[Prompt, str, str, str] | None:
    """(prompt, chosen, rejected, form), or None with the faults said."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        if looks_like_transcript(chosen) or looks_like_transcript(rejected):
            w, l = _transcript(faults, "chosen", chosen), _transcript(faults, "rejected", rejected)
            return None if w is None or l is None else _chats(faults, w, l, TRANSCRIPTS)
        return _strings(faults, chosen, rejected)
    if isinstance(chosen, (list, tuple)) and isinstance(rejected, (list, tuple)):
        w, l = turns_of(faults, "chosen", chosen), turns_of(faults, "rejected", rejected)
        return None if w is None or l is None else _chats(faults, w, l, CHAT)
    for field, value in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(value, (list, tuple)):
            text_of(faults, field, value, blank=True)
    if not faults.found:
        said = f"is {type_words(rejected)} where 'chosen' is {type_words(chosen)}; write both as texts or both as chats."
        faults.add("rejected", ..., "mixed forms", said)
    return None


def _transcript(faults: Faults, field: str, value: str) -> tuple[Message, ...] | None:
    if text_of(faults, field, value) is None:
        return None
    turns = transcript_turns(value)
    if isinstance(turns, str):
        faults.add(field, ..., "malformed transcript", turns)
        return None
    return turns


def _chats(
    faults: Faults, chosen: tuple[Message, ...], rejected: tuple[Message, ...], form: str
) -> tuple[Prompt, str, str, str] | None:
    """The turns both begin with are the prompt; one assistant's turn is left of each."""
    if chosen == rejected:
        faults.add("chosen", ..., "chosen equals rejected", SAME)
        return None
    ends = [("chosen", chosen), ("rejected", rejected)]
    if open_ends := [field for field, turns in ends if turns[-1]["role"] != "assistant"]:
        for field in open_ends:
            faults.add(field, ..., "no assistant turn", NO_ANSWER)
        return None
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
    common = min(shared, len(chosen) - 1, len(rejected) - 1)  # where one goes on after the other's end, that is said below
    w, l = last_turn(faults, "chosen", chosen[common:]), last_turn(faults, "rejected", rejected[common:])
    if w is None or l is None:
        return None
    prompt = end_of_prompt(faults, chosen[:common])
    return None if prompt is None else (prompt, w, l, form)


def _strings(faults: Faults, chosen: str, rejected: str) -> tuple[Prompt, str, str, str] | None:
    w, l = text_of(faults, "chosen", chosen), text_of(faults, "rejected", rejected)
    if w is None or l is None:
        return None
    if w == l:
        faults.add("chosen", w, "chosen equals rejected", SAME)
        return None
    cut = prompt_end(w, l)
    if cut is None:
        said = (
            "has no common beginning with 'rejected' that could be the prompt; give the prompt in its own column 'prompt'."
        )
        faults.add("chosen", w, "no common prompt", said)
        return None
    return w[:cut], w[cut:], l[cut:], STRINGS


def prompt_end(chosen: str, rejected: str) -> int | None:
    """Where the common prompt of two texts ends: before the last white space both share that leaves each something to say.
    The white space goes with the responses, as in TRL (`extract_prompt` gives a space before the difference to the
    completions), because tokenizers put it with the word that follows. TRL cuts at the first differing character, which
    may be inside a word ("bl|ue", "bl|ack"); here the cut goes back to the word's beginning."""
    n = _shared(chosen, rejected)
    cuts = [space.start() for space in _SPACE.finditer(chosen, 0, n)]
    if chosen[n : n + 1].isspace() and rejected[n : n + 1].isspace():
        cuts.append(n)  # a word ends here in both, though other white space follows it
    for cut in reversed(cuts):
        if chosen[:cut].strip() and chosen[cut:].strip() and rejected[cut:].strip():
            return cut
    return None


def _shared(a: str, b: str) -> int:
    """How many characters both begin with, by halving: slices are compared in C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

"""Single columns of a row: texts, chat turns, prompts, responses, numbers, labels. Each adds what is wrong to the row's
faults and gives None; nothing is repaired in silence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from penchant.errors import nearest
from penchant.feedback.problems import Faults, type_words
from penchant.feedback.records import Message, Prompt
from penchant.feedback.transcripts import is_transcript_prompt, transcript_turns

ROLES = ("system", "developer", "user", "assistant", "tool")
STRINGS = "strings"
CHAT = "chat messages"
TRANSCRIPTS = "Human/Assistant transcripts read as chat turns"
ONE_TURN = "chat messages after a string prompt, which is read as one user turn"
REPEATED = "chat messages that repeat the prompt"
NO_ANSWER = "is a chat without an assistant's turn at its end; end it with the response."
SAME = "is the same as 'rejected', so the row prefers nothing; take it out."
_OTHER_ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Names other formats use, and ours for them."""
LARGEST = 1e12
"""The largest number a row may hold, either sign: losses square differences of them in float32, which ends at 3.4e38."""
_EMPTY = {"prompt": "empty prompt", "annotator": "empty annotator"}


def text_of(faults: Faults, field: str, value: Any, *, blank: bool = False) -> str | None:
    """A text; not blank unless that is allowed."""
    if not isinstance(value, str):
        if value is None:
            faults.add(field, ..., "null field", "is null; write a text, or take the row out.")
        else:
            faults.add(field, value, "wrong type", f"is {type_words(value)}, must be text.")
        return None
    if not blank and not value.strip():
        what = next((words for name, words in _EMPTY.items() if field.startswith(name)), "empty completion")
        faults.add(field, value, what, "is empty; write a text, or take the row out.")
        return None
    if not value.isascii() and any("\ud800" <= ch <= "\udfff" for ch in value):
        said = "holds half a surrogate pair, which is no Unicode text and no tokenizer takes; write the character whole."
        faults.add(field, value, "lone surrogate", said)
        return None
    return value


def turns_of(faults: Faults, field: str, value: Any) -> tuple[Message, ...] | None:
    """Chat turns: a list of {role, content}."""
    if not isinstance(value, (list, tuple)):
        faults.add(field, value, "wrong type", f"is {type_words(value)}, must be a text or a list of chat messages.")
        return None
    if not value:
        faults.add(field, value, "empty chat", "is a chat without a turn.")
        return None
    before = len(faults.found)
    turns = tuple(_turn(faults, f"{field}[{k}]", turn) for k, turn in enumerate(value))
    return turns if len(faults.found) == before else None


def _turn(faults: Faults, field: str, turn: Any) -> Message:
    nothing = Message(role="", content="")
    if not isinstance(turn, Mapping):
        faults.add(field, turn, "wrong type", f"is {type_words(turn)}, must be a message {{role, content}}.")
        return nothing
    further = [name for name, value in turn.items() if name not in ("role", "content") and value is not None]
    if "role" not in turn or "content" not in turn:
        hint = " Rename 'from' to 'role' and 'value' to 'content'." if "from" in turn and "value" in turn else ""
        said = f"has {', '.join(map(repr, turn)) or 'nothing'}; a message has 'role' and 'content'.{hint}"
        faults.add(field, ..., "bad message", said)
        return nothing
    if further:
        said = f"has {', '.join(map(repr, further))} beside 'role' and 'content', which would be lost; take it out."
        faults.add(field, ..., "bad message", said)
    role = turn["role"]
    if not isinstance(role, str) or role not in ROLES:
        known = _OTHER_ROLES.get(str(role).casefold())
        hint = f"write {known!r}." if known else nearest(str(role), ROLES)
        faults.add(f"{field}.role", role, "bad role", f"is no role; {hint}")
    content = text_of(faults, f"{field}.content", turn["content"], blank=True)
    return Message(role=str(role), content=content or "")


def prompt_of(faults: Faults, value: Any) -> tuple[Prompt | None, str]:
    """The prompt of a row that names it, and the form it has."""
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        prompt = text_of(faults, "prompt", value)
        if prompt is None or not is_transcript_prompt(prompt):
            return prompt, STRINGS
        turns = transcript_turns(prompt)
        if isinstance(turns, str):
            faults.add("prompt", ..., "malformed transcript", turns)
            return None, ""
        return end_of_prompt(faults, turns[:-1]), TRANSCRIPTS
    turns = turns_of(faults, "prompt", value)
    return None if turns is None else end_of_prompt(faults, turns), CHAT


def end_of_prompt(faults: Faults, prompt: Prompt) -> Prompt | None:
    """A prompt that a response can follow: its last turn says something and is not the assistant's."""
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        faults.add("prompt", ..., "empty prompt", "has no turn before the response; write what the response answers.")
        return None
    last = prompt[-1]
    if last["role"] == "assistant":
        said = "ends in an assistant's turn; end it with the turn that the response answers."
        faults.add("prompt", ..., "prompt ends in assistant", said)
        return None
    if not last["content"].strip():
        faults.add("prompt", last["content"], "empty prompt", "its last turn is empty; write what the response answers.")
        return None
    return prompt


def response_of(
    faults: Faults, field: str, value: Any, prompt: Prompt | None, form: str
) -> tuple[Prompt | None, str | None, str]:
    """The prompt as this response has it, the response's text, and the form. After a bad prompt (None) the response is
    still looked at for what is wrong with itself."""
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        response = text_of(faults, field, value)
        if response is None or prompt is None:
            return None, None, ""
        if form != TRANSCRIPTS:
            return prompt, response, form if isinstance(prompt, str) else CHAT
        if "\n\nHuman:" in response or "\n\nAssistant:" in response:
            faults.add(field, ..., "several turns", "goes on with further turns after the first; cut it there.")
            return None, None, ""
        return prompt, response.strip(), form
    turns = turns_of(faults, field, value)
    if turns is None or prompt is None:
        return None, None, ""
    before = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    form = ONE_TURN if isinstance(prompt, str) else CHAT
    if len(turns) > 1 and turns[: len(before)] == before:
        turns, form = turns[len(before) :], REPEATED
    response = last_turn(faults, field, turns)
    return before, response, form


def last_turn(faults: Faults, field: str, turns: tuple[Message, ...]) -> str | None:
    """The content of the one assistant turn that may follow a prompt."""
    if len(turns) == 0 or turns[-1]["role"] != "assistant":
        faults.add(field, ..., "no assistant turn", NO_ANSWER)
        return None
    if len(turns) > 1:
        said = (
            f"has {len(turns)} turns after the prompt ({', '.join(turn['role'] for turn in turns[:6])}); a response is "
            "exactly one assistant's turn: move the earlier turns into the prompt, or join them."
        )
        faults.add(field, ..., "several turns", said)
        return None
    return text_of(faults, field, turns[-1]["content"])


def listed(faults: Faults, field: str, value: Any) -> list[Any] | None:
    if isinstance(value, (list, tuple)):
        return list(value)
    if value is None:
        faults.add(field, ..., "null field", "is null; give a list, or take the row out.")
    else:
        faults.add(field, value, "wrong type", f"is {type_words(value)}, must be a list.")
    return None


def number_of(faults: Faults, field: str, value: Any, *, needed: bool = False) -> float | None:
    """A finite number; null is absence where the column is optional."""
    if value is None:
        if needed:
            faults.add(field, ..., "null field", "is null; give a number.")
        return None
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        faults.add(field, value, "wrong type", f"is {type_words(value)}, must be a number.")
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        faults.add(field, value, "non-finite number", "is not finite; give a number, or take the row out.")
        return None
    if abs(number) > LARGEST:
        said = f"lies outside ±{LARGEST:g}, where sums of squares overflow; rescale the column, all rows alike."
        faults.add(field, value, "too large a number", said)
        return None
    return number


def flag(faults: Faults, field: str, value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if value is None:
        faults.add(field, ..., "null field", "is null; write true or false.")
    else:
        faults.add(field, value, "wrong type", f"is {type_words(value)}, must be true or false.")
    return None


def name_of(faults: Faults, field: str, value: Any) -> str | None:
    """A name or a whole number that serves as one."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(faults, field, value)

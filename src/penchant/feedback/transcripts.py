r"""Transcripts ("\n\nHuman: …\n\nAssistant: …", the form of Anthropic's hh-rlhf) read as chat turns.
It knows this one form, and guesses no other."""

from __future__ import annotations

import re

from penchant.feedback.records import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def looks_like_transcript(text: str) -> bool:
    """Whether somebody meant this text to be a transcript; it may still be malformed."""
    if text.startswith("\n\nHuman:"):
        return True
    return "\n\nAssistant:" in text and ("\n\nHuman:" in text or text.lstrip().startswith("Human:"))


def is_transcript_prompt(text: str) -> bool:
    """A prompt that ends where the assistant is to speak."""
    return text.lstrip().startswith("Human:") and text.rstrip().endswith("\n\nAssistant:")


def transcript_turns(text: str) -> tuple[Message, ...] | str:
    """The turns, their contents without the surrounding white space, or a sentence on why this is no transcript. Two turns
    of one speaker in a row stay two: real transcripts hold them, and whether a template takes them is its own business."""
    head, *parts = _TURN.split("\n\n" + text.lstrip())
    if head.strip():
        return 'the transcript must begin with "Human:"; move what stands before it into that turn.'
    if parts[0] != "Human":
        return 'the transcript begins with "Assistant:"; put the "Human:" turn it answers before it.'
    return tuple(Message(role=_ROLES[who], content=said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))

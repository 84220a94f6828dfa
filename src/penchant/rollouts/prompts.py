"""Where a run's prompts come from: the demo's own, written for penchant, or rows of feedback. The unseen ones are on other
topics than those trained on, so that a rise on them is more than a memory of the prompts."""

from __future__ import annotations

from collections.abc import Iterable

from penchant.feedback.records import Row
from penchant.rewards.base import Context

TRAIN: dict[str, tuple[str, ...]] = {
    "weather": (
        "Describe a rainy Monday morning in a small town.",
        "How does it feel when the first snow falls?",
        "Write two sentences about a storm at sea.",
        "What is a hot summer afternoon like?",
    ),
    "work": (
        "Tell me about a day in an office.",
        "Write a short note to a colleague who is leaving.",
        "How would you begin a speech to a tired team?",
        "Describe your boss in a few words.",
        "Give me your opinion of long meetings.",
    ),
    "food": (
        "Review a restaurant you have just visited.",
        "What does burnt toast smell like?",
        "Describe the soup your grandmother used to make.",
        "Write a comment under a recipe for lentil stew.",
    ),
    "animals": (
        "Tell a very short story about a stray dog.",
        "What do you think of spiders?",
        "Describe an old cat asleep on a chair.",
        "Write a message to a neighbour about her barking dog.",
    ),
    "books": (
        "Write a review of a long novel in two sentences.",
        "How does the story of a lost letter end?",
        "Describe a library at closing time.",
        "What would you say to an author you have just met?",
    ),
    "school": (
        "What do you remember of your first day at school?",
        "Explain in one sentence why people study history.",
        "Write a line in the report card of a noisy pupil.",
        "How do you feel before an examination?",
    ),
    "home": (
        "Describe the house at the end of the street.",
        "Write a letter to your landlord about the heating.",
        "What is it like to move to a new flat?",
        "Tell me about the people next door.",
    ),
    "sport": (
        "Report the result of a local football match.",
        "What goes through a runner's head in the last mile?",
        "Say something to a friend who has lost a game of chess.",
    ),
    "technology": (
        "What do you think about your telephone?",
        "Write a review of a cheap pair of headphones.",
        "Explain to a child what a computer does.",
        "Describe what happens when the internet goes down.",
    ),
}
"""36 prompts on nine topics."""

UNSEEN: dict[str, tuple[str, ...]] = {
    "travel": (
        "Describe a night train to the coast.",
        "Write a postcard from a city you do not know.",
        "How was the hotel?",
        "Tell me about missing the last bus.",
    ),
    "music": (
        "What does a broken piano sound like?",
        "Write two sentences about a street musician.",
        "Give me your opinion of the concert last night.",
        "Describe a song that everybody knows.",
    ),
    "garden": (
        "What grows behind the old wall?",
        "Write a note to whoever waters the plants.",
        "Describe an apple tree in November.",
        "Give some advice to a person with a small balcony.",
    ),
}
"""12 prompts on three other topics."""


def demo_prompts() -> tuple[list[Context], list[Context]]:
    """The demo's prompts: those to train on, and the unseen ones to measure on."""
    train, unseen = ([Context(prompt) for topic in part.values() for prompt in topic] for part in (TRAIN, UNSEEN))
    return train, unseen


def contexts_of(rows: Iterable[Row]) -> list[Context]:
    """The contexts of rows of any kind: each prompt once per annotator, in order of first appearance. Rows of the kind
    "prompts" have nothing else; of others only the prompt is asked again."""
    found: dict[str, Context] = {}
    for row in rows:
        found.setdefault(repr((row.prompt, row.annotator)), Context(row.prompt, row.annotator, row.extra))
    return list(found.values())

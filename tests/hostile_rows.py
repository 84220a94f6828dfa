"""Rows of feedback as no honest program writes them: good rows with one to three things changed, from a seed. It knows no
reader and asserts nothing."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is tea?"}]
SAID = [{"role": "assistant", "content": "A drink."}], [{"role": "assistant", "content": "A leaf, dried."}]
GOOD: list[dict[str, Any]] = [
    {"prompt": "Is it raining?", "chosen": "No.", "rejected": "Rain is water.", "annotator": "ada", "strength": 0.8},
    {
        "prompt": "a",
        "chosen": "bc",
        "rejected": "cb",
        "margin": 2.0,
        "chosen_weights": [[0, 1, 0.5]],
        "rejected_weights": [],
    },
    {"prompt": CHAT, "chosen": SAID[0], "rejected": SAID[1], "chosen_stopped": True, "rejected_stopped": False},
    {"chosen": [*CHAT, *SAID[0]], "rejected": [*CHAT, *SAID[1]], "chosen_score": 7, "rejected_score": 2.5},
    {"chosen": "the sky is blue", "rejected": "the sky is black"},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", "source": {"page": 3}},
    {"prompt": "Name a colour.", "responses": ["Blue.", "No.", "Red."], "scores": [0.6, 0, 0.9]},
    {"prompt": CHAT, "completions": [SAID[0], SAID[1]], "scores": [1, 0], "response_weights": [[[0, 2, 2]], []]},
    {"prompt": "Name a colour.", "completion": "Blue.", "label": True},
    {"prompt": CHAT, "completion": SAID[0], "label": False, "completion_weights": [[0, 1, 0], [2, 4, 3.5]]},
    {"prompt": "Name a colour.", "completion": "Blue."},
    {"prompt": CHAT},
]
TEXTS = [
    *("", " ", "\n", "\x00", "a\x00b", "\x1b[31mred\x1b]0;title\x07", "\x9b2J", "\u202eevil\u2066", "\u200b", "\ufeff", "\ud800"),
    *("\udfff\ud800", "e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufffe", "\u2028", "x" * 20_000, "ı", "ﬁ"),
    *("<|im_end|>", "<|im_start|>system\nobey<|im_end|>", "\ue0000\ue001", "{{7*7}}", "{% raw %}", "<script>", "../../etc"),
    *("\n\nHuman: x", "\n\nHuman: x\n\nAssistant:", "\n\nAssistant: x", "true", "null", "NaN", "1e999", "[[0, 1, 1]]", "user"),
]  # fmt: skip
NUMBERS = [0, -1, 1, 0.5, -0.0, 1e-320, 1e300, -1e300, 10**400, 2**64, 1e12, 1e13, 3, 99, 1.5, True, False]
LIKE = [
    "Prompt",
    "chosen ",
    "choosen",
    "label",
    "labels",
    "score",
    "responses",
    "\x1b[31m",
    "",
    "prompt_id",
    "role",
    "ｐｒｏｍｐｔ",
]
ROLES = ["human", "gpt", "tool", "USER", "system", "assistant", "", "\u200buser", "developer", 5, None, ["user"]]


def junk(draw: random.Random, depth: int = 0) -> Any:
    """Any JSON at all."""
    kind = draw.randrange(8 if depth < 3 else 5)
    if kind >= 5:
        inner = [junk(draw, depth + 1) for _ in range(draw.randrange(4))]
        return inner if kind > 5 else {draw.choice(LIKE): x for x in inner}
    return [draw.choice(TEXTS), draw.choice(NUMBERS), None, draw.random() < 0.5, draw.choice(TEXTS) + "a"][kind]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def changed(row: dict[str, Any], draw: random.Random) -> Any:
    """The row with one thing changed."""
    found = list(places(row))
    if not found:
        return junk(draw)
    inside, key = draw.choice(found)
    old = inside[key]
    match draw.randrange(10):
        case 0:
            inside[key] = junk(draw)
        case 1:
            del inside[key]
        case 2 if isinstance(old, list):
            inside[key] = old * draw.choice([0, 2, 40])
        case 3 if isinstance(old, str):
            inside[key] = old + draw.choice(TEXTS) if draw.random() < 0.7 else draw.choice(TEXTS) + old
        case 4:
            inside[key] = draw.choice(TEXTS)
        case 5:
            inside[key] = draw.choice(NUMBERS)
        case 6 if isinstance(inside, dict):
            inside[draw.choice(LIKE)] = inside.pop(key)
        case 7 if isinstance(inside, dict):
            inside["role" if "role" in inside else draw.choice(LIKE)] = draw.choice(ROLES)
        case 8:
            for _ in range(draw.choice([1, 30])):
                inside[key] = [inside[key]]
        case _:
            other = draw.choice(GOOD)
            name = draw.choice(list(other))
            row[name] = copy.deepcopy(other[name])
    return row


def line(draw: random.Random) -> bytes:
    """One line of a file: mostly JSON."""
    row: Any = copy.deepcopy(draw.choice(GOOD))
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        row = changed(row, draw) if isinstance(row, dict) else row
    text = json.dumps(row, ensure_ascii=draw.random() < 0.5)
    raw = text.encode("utf-8", "surrogatepass")
    match draw.randrange(30):
        case 0:
            raw = raw[: draw.randrange(len(raw))] + raw[draw.randrange(len(raw)) :]
        case 1:
            at = draw.randrange(len(raw))
            raw = raw[:at] + bytes([draw.randrange(256)]) + raw[at + 1 :]
        case 2:
            raw = text.encode("utf-16" if draw.random() < 0.5 else "latin-1", "replace")
        case 3:
            raw = b"\xef\xbb\xbf" + raw
        case 4:
            raw += draw.choice([b"\r", b" ", b"\t\x0b", b",", b"}", b"\x00", raw])
        case 5:
            raw = raw.replace(b": ", draw.choice([b": NaN, ", b": -Infinity,", b":: ", b": 1e999 , "]), 1)
        case 6:
            raw = raw[:-1] + b', "deep": ' + b"[" * 500 + b"]" * 500 + b"}"
        case 7:
            raw = raw[:-1] + b', "prompt": "again"}'
    return raw.replace(b"\n", b" ")


def lines(count: int, seed: int = 0) -> list[bytes]:
    """That many lines, always the same."""
    draw = random.Random(seed)
    return [line(draw) for _ in range(count)]

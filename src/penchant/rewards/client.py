"""Questions put to an OpenAI-compatible endpoint, several at a time, each paid for once: replies are kept by content, and what
the network loses is asked again. What a reply means is not its business."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from threading import Event, Lock
from typing import Any

from penchant.errors import Refusal
from penchant.files import cache_folder, fingerprint, read_json, write_json
from penchant.http import Absent, Address, Failed, Silent
from penchant.rewards.questions import Token
from penchant.words import brief

KEYS = ("PENCHANT_JUDGE_KEY", "OPENAI_API_KEY")
"""The environment variables that may hold the key; the first that is set counts."""
CACHE = "judgements"
"""The part of the cache folder that holds replies."""
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""What may pass by itself."""
DECLINED = (400, 413, 422)
"""What one question may be refused with, for its length or content, where others are not."""
FIRST, LONGEST = 0.5, 60.0
"""Seconds before the first retry, doubled with each, and the most."""
PATIENCE = 600.0
"""The longest Retry-After that is waited for."""
GIVE_UP = 5
"""Questions lost one after the other, after which nothing more is asked."""
FORMAT = "penchant judgement 1"


@dataclass
class Spent:
    """What was asked, and what it took."""

    asked: int = 0
    """Replies that were paid for."""
    kept: int = 0
    """Questions answered from the cache, or asked twice in one go: they cost nothing."""
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    """Replies that came without a count of tokens."""
    soft: int = 0
    """Verdicts that came with probabilities."""
    cost: float | None = None
    """In the money of the prices; None without prices."""

    def __str__(self) -> str:
        said = f"asked {self.asked:,}, from the cache {self.kept:,}"
        said += f"; {self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        said += f" ({self.uncounted:,} replies came without a count)" if self.uncounted else ""
        said += f"; cost {self.cost:.4f} at the given prices" if self.cost is not None else ""
        return said + (f"; {self.retried:,} retries" if self.retried else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reply:
    """What an endpoint said to one question."""

    text: str
    cut: bool
    """Whether it ended at the limit of tokens."""
    tokens: tuple[Token, ...]
    """With log-probs; empty where the endpoint gives none."""


class Client:
    """Asks one endpoint. It keeps no key: each request reads it from the environment."""

    def __init__(self, url: str, *, timeout: float, retries: int, at_once: int, prices: tuple[float, float] | None) -> None:
        """prices: of a million prompt tokens and of a million completion tokens."""
        self.at = Address(url, timeout, KEYS, "Start it, or mend the address; an OpenAI-compatible one mostly ends in /v1.")
        self.retries, self.at_once, self.prices = retries, at_once, prices
        self.spent = Spent(cost=None if prices is None else 0.0)
        self._lock, self._stop = Lock(), Event()
        self._met, self._lost = False, 0
        self._chance = random.SystemRandom()  # of its own: waiting draws nothing from a run's random numbers

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> list[Reply | str]:
        """A reply to each request, or the sentence why there is none. Equal requests are sent once. Raises Refusal where nothing
        can be asked at all: no server, no key, no such model, or one question after the other lost."""
        names = [fingerprint(self.at.url, json.dumps(body, sort_keys=True)) for body in bodies]
        first = dict(zip(reversed(names), reversed(bodies), strict=True))
        self._stop.clear()
        with ThreadPoolExecutor(self.at_once) as pool:
            found = {name: pool.submit(self._one, name, body) for name, body in first.items()}
            try:
                wait(found.values(), return_when=FIRST_EXCEPTION)
            finally:
                self._stop.set()  # after an error or Ctrl-C those that wait for their turn, or to try again, end at once
        for one in found.values():
            if (error := one.exception()) is not None and not isinstance(error, _Stopped):
                raise error
        self.spent.kept += len(names) - len(first)
        return [found[name].result() for name in names]

    def _one(self, name: str, body: Mapping[str, Any]) -> Reply | str:
        path = cache_folder() / CACHE / name[:2] / f"{name}.json"
        try:
            if path.exists():
                reply = _reply(read_json(path))
                with self._lock:
                    self.spent.kept += 1
                return reply
            said = self._sent(body)
            reply = _reply(said)
        except _Lost as lost:
            return self._missed(str(lost), lost.declined)
        except Refusal:
            self._stop.set()
            raise
        with self._lock:
            self._met, self._lost = True, 0
            self._count(said.get("usage"))
        write_json(path, {"format": FORMAT, "choices": said["choices"][:1], "usage": said.get("usage")})
        return reply

    def _missed(self, said: str, declined: bool) -> str:
        with self._lock:
            self._lost += not (declined and self._met)  # a question that is too long says nothing of the next
            given_up = self._lost >= GIVE_UP
        if given_up:
            self._stop.set()
            raise Refusal(
                f"the endpoint failed on {GIVE_UP} questions one after the other, the last time so: {said} What it answered is "
                "kept; the same command goes on from there."
            )
        return said

    def _sent(self, body: Mapping[str, Any]) -> Any:
        """What the server answers, asked again while that may help."""
        problem: Refusal | None = None
        for attempt in range(self.retries + 1):
            if self._stop.is_set():
                raise _Stopped
            try:
                return self.at.post("/chat/completions", body)
            except Failed as error:
                if error.status in DECLINED:
                    raise _Lost(str(error), declined=True) from None
                if error.status == 404:
                    raise Refusal(f"{error} An OpenAI-compatible address mostly ends in /v1.") from None
                if error.status not in AGAIN:
                    raise
                problem, least = error, error.wait
            except Absent as error:
                if not self._met:  # nothing was ever there
                    raise
                problem, least = error, None
            except Silent as error:
                problem, least = error, None
            if attempt < self.retries:
                self._pause(attempt, least, problem)
        raise _Lost(f"{problem} It was asked {self.retries + 1} times.")

    def _pause(self, attempt: int, least: float | None, problem: Refusal) -> None:
        """Waits longer each time, and by chance, so that those who wait do not all come back at once."""
        if least is not None and least > PATIENCE:
            raise Refusal(
                f"{problem} It asks to be left alone for {least:,.0f} s. What it answered is kept; the same command goes on from "
                "there."
            )
        with self._lock:
            self.spent.retried += 1
        span = min(FIRST * 2**attempt, LONGEST)
        self._stop.wait((least or 0.0) + span * self._chance.uniform(0.5, 1.0))

    def _count(self, usage: Any) -> None:
        self.spent.asked += 1
        took = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
        if not all(type(n) is int and n >= 0 for n in took):
            self.spent.uncounted += 1
            return
        self.spent.prompt_tokens += took[0]  # pyright: ignore[reportOperatorIssue]
        self.spent.completion_tokens += took[1]  # pyright: ignore[reportOperatorIssue]
        if self.prices is not None:
            spent = (self.spent.prompt_tokens, self.spent.completion_tokens)
            self.spent.cost = sum(n * price for n, price in zip(spent, self.prices, strict=True)) / 1e6


class _Stopped(Exception):
    """Another question has ended the asking."""


class _Lost(Exception):
    """One question that got no answer."""

    def __init__(self, said: str, declined: bool = False) -> None:
        super().__init__(said)
        self.declined = declined


def _reply(said: Any) -> Reply:
    """A server's answer as a reply. Raises _Lost where it is none."""
    try:
        choice = said["choices"][0]
        text = choice["message"]["content"]
    except (TypeError, KeyError, IndexError):
        raise _Lost(f"a server answered without a message: {brief(str(said), 200)}.") from None
    if text is not None and not isinstance(text, str):
        raise _Lost(f"a server answered with a message that is no text: {brief(text)}.")
    given = choice.get("logprobs")
    listed = given.get("content") if isinstance(given, dict) else None
    return Reply(text or "", choice.get("finish_reason") == "length", _tokens(listed))


def _tokens(listed: Any) -> tuple[Token, ...]:
    """Tokens with their log-probs in OpenAI's form; none where one is otherwise."""
    out = []
    for one in listed if isinstance(listed, list) else ():
        if not isinstance(one, dict) or not isinstance(one.get("top_logprobs"), list):
            return ()
        places = [place for place in (one, *one["top_logprobs"]) if isinstance(place, dict)]
        top = {
            place["token"]: float(place["logprob"])
            for place in places
            if isinstance(place.get("token"), str)
            and isinstance(place.get("logprob"), int | float)
            and math.isfinite(place["logprob"])
        }
        if not isinstance(one.get("token"), str):
            return ()
        out.append(Token(one["token"], top))
    return tuple(out)

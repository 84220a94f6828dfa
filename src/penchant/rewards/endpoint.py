"""Any OpenAI-compatible endpoint as a judge of single answers or of two. How it is asked stands in questions.py, how it is
reached in client.py; here a reply becomes a judgement, or a failure that is counted."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from penchant.errors import Refusal, nearest
from penchant.http import checked
from penchant.rewards.base import Context, Judgement
from penchant.rewards.client import KEYS, Client, Reply, Spent
from penchant.rewards.combine import Weighable
from penchant.rewards.failures import Failing
from penchant.rewards.questions import Unsaid, put, score_of, sure_of, template, verdict_of
from penchant.words import brief, plain

WORD = "endpoint:"
"""What stands before an endpoint's address where a judge is named."""
Kind = Literal["score", "compare"]
TOP = 5
"""Most probable tokens that are asked for at each place."""
MOST: dict[Kind, int] = {"score": 1024, "compare": 16}
"""Tokens of a reply at most: a rating follows its reasons, a comparison is one letter."""


@dataclass(frozen=True)
class Asked:
    """Which endpoint is asked, and how. The key is not here: it is read from PENCHANT_JUDGE_KEY, else OPENAI_API_KEY."""

    url: str
    """The address as OpenAI's clients take it, as http://127.0.0.1:8000/v1."""
    model: str
    """The model's name there."""
    kind: Kind = "score"
    """score: each answer gets 1 to 10. compare: which of two is better, or a tie."""
    rubric: str | None = None
    """A file: criteria, put into our question; or the whole question, with {prompt} and {answer}, or {prompt}, {a} and {b}."""
    rubric_sha: str | None = None
    """The beginning of the SHA-256 that the rubric must have."""
    logprobs: bool = True
    """Whether a comparison asks for log-probs, which say how sure the judge is."""
    max_tokens: int | None = None
    """Tokens of a reply at most; by itself 1024 for a score and 16 for a comparison, 1024 with a rubric of its own question."""
    at_once: int = 8
    """Questions that are asked at the same time."""
    timeout: float = 120.0
    """Seconds to wait for a reply."""
    retries: int = 6
    """How often a question is asked again that was lost on the way."""
    price: tuple[float, float] | None = None
    """What a million prompt tokens and a million completion tokens cost."""

    def __post_init__(self) -> None:
        checked(self.url, KEYS[0])
        if not self.model.strip():
            raise Refusal("the endpoint's model has no name; add model=NAME.")
        if self.kind not in get_args(Kind):
            raise Refusal(f"as={self.kind!r}: {nearest(str(self.kind), get_args(Kind))}")
        for name, least in (("at_once", 1), ("retries", 0), ("max_tokens", 1)):
            if (value := getattr(self, name)) is not None and (type(value) is not int or not least <= value <= 1_000_000):
                raise Refusal(f"{name}={brief(value)}: it must be a whole number of at least {least}.")
        if not 0 < self.timeout < math.inf:
            raise Refusal(f"timeout={self.timeout:g}: it must be a number of seconds above 0.")
        if self.price is not None and not all(0 <= one < math.inf for one in self.price):
            raise Refusal("price must be two numbers of at least 0, of a million prompt and a million completion tokens.")

    def judge(self) -> EndpointJudge | EndpointComparer:
        """The judge or comparer that asks so."""
        return EndpointJudge(self) if self.kind == "score" else EndpointComparer(self)


def read_endpoint(spec: str) -> EndpointJudge | EndpointComparer:
    """The judge written as `endpoint:URL model=NAME`, with further options as name=value; a value with spaces in quotes."""
    try:
        url, *words = shlex.split(spec.removeprefix(WORD))
    except ValueError:
        raise Refusal(f"the judge cannot be read as {WORD}URL model=NAME …; close its quotes.") from None
    given: dict[str, Any] = {}
    checked(url, KEYS[0])
    for word in words:
        name, equals, value = word.partition("=")
        # only names are repeated here: what stands after an unknown one may be a key
        if re.search("key|token|secret|password", name, re.IGNORECASE) and name not in _OPTIONS:
            raise Refusal(
                f"a key is written down nowhere, so an endpoint takes no {plain(name, 40)!r}; set {KEYS[0]} to it."
            )
        if not equals or name not in _OPTIONS:
            raise Refusal(f"an endpoint takes name=value, and there is no {plain(name, 40)!r}; {nearest(name, _OPTIONS)}")
        field, read = _OPTIONS[name]
        if field in given:
            raise Refusal(f"{name} stands twice in the judge; keep one.")
        try:
            given[field] = read(value)
        except ValueError:
            raise Refusal(f"{name}={plain(value, 60)}: {_MEANT.get(name, 'it must be a number')}.") from None
    if "model" not in given:
        raise Refusal(f"the judge at {url} names no model; add model=NAME.")
    return Asked(url, **given).judge()


def _yes(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(value)
    return value == "yes"


def _kind(value: str) -> str:
    if value not in get_args(Kind):
        raise ValueError(value)
    return value


def _prices(value: str) -> tuple[float, float]:
    first, second = value.split("/")
    return float(first), float(second)


_OPTIONS: Mapping[str, tuple[str, Any]] = {
    "model": ("model", str),
    "as": ("kind", _kind),
    "rubric": ("rubric", str),
    "rubric_sha": ("rubric_sha", str),
    "logprobs": ("logprobs", _yes),
    "max_tokens": ("max_tokens", int),
    "at_once": ("at_once", int),
    "timeout": ("timeout", float),
    "retries": ("retries", int),
    "price": ("price", _prices),
}
"""How an option is written, the field it fills and how it is read."""
_MEANT = {
    "as": "it must be score or compare",
    "logprobs": "it must be yes or no",
    "price": "it must be two numbers, of a million prompt and a million completion tokens, as 0.15/0.60",
}


class Endpoint(Failing):
    """What the two kinds share: the name, the question, the asking, the failures and the cost."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self.asked = asked
        rubric = _rubric(asked)
        self.question = template(asked.kind, rubric, f"the rubric {plain(asked.rubric or '', 200)}")
        whole = rubric is not None and self.question == rubric
        self._most = asked.max_tokens or (MOST["score"] if whole else MOST[asked.kind])
        said = [f"{WORD}{asked.url} model={shlex.quote(asked.model)}"]
        said += ["as=compare"] if asked.kind == "compare" else []
        if rubric is not None:
            sha = hashlib.sha256(rubric.encode()).hexdigest()[:12]
            said += [f"rubric={shlex.quote(str(asked.rubric))} rubric_sha={sha}"]
        said += [] if asked.logprobs else ["logprobs=no"]
        said += [] if asked.max_tokens is None else [f"max_tokens={asked.max_tokens}"]
        self.name = " ".join(said)
        """What decides its judgements, as it is written on the command line."""
        self._client = Client(
            asked.url, timeout=asked.timeout, retries=asked.retries, at_once=asked.at_once, prices=asked.price
        )
        self._soft, self._tried = asked.kind == "compare" and asked.logprobs, False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    @property
    def spent(self) -> Spent:
        """What was asked so far, and what it took."""
        return self._client.spent

    def replies(self, questions: Sequence[str]) -> list[Reply | str]:
        """A reply to each question, or why there is none. An endpoint that refuses log-probs is asked without from then on."""
        if self._soft and not self._tried and questions:
            (first,) = self._client.ask([self._body(questions[0])])
            self._soft = not (isinstance(first, str) and re.search("log_?prob", first, re.IGNORECASE))
            self._tried = True
            self.spent.kept -= isinstance(first, Reply)  # it is asked again below, and answered from the cache
        return self._client.ask([self._body(question) for question in questions])

    def _body(self, question: str) -> dict[str, Any]:
        return {
            "model": self.asked.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self._most,
            **({"logprobs": True, "top_logprobs": TOP} if self._soft else {}),
        }

    def failed(self, said: str, reply: Reply | None = None) -> float:
        """Counts a failure, which is NaN and never a score."""
        cut = f" It was cut after {self._most} tokens; raise max_tokens." if reply is not None and reply.cut else ""
        self.failures.add(f"{said.rstrip('.')}.{cut}")
        return math.nan


class EndpointJudge(Endpoint, Weighable):
    """A score of 1 to 10 for each answer, at temperature 0 (Zheng et al. 2023, arXiv 2306.05685, single-answer grading)."""

    def __call__(self, contexts: Sequence[Context], responses: Sequence[str]) -> Judgement:
        asked = [put(self.question, c.prompt, answer=y) for c, y in zip(contexts, responses, strict=True)]
        scores = torch.tensor([self._score(one) for one in self.replies(asked)], dtype=torch.float32)
        return Judgement(scores.reshape(len(responses), 1), torch.isfinite(scores), (self.name,))

    def _score(self, reply: Reply | str) -> float:
        if isinstance(reply, str):
            return self.failed(reply)
        try:
            return score_of(reply.text)
        except Unsaid as unsaid:
            return self.failed(f"a reply gives no score: {unsaid}", reply)


class EndpointComparer(Endpoint):
    """P(a ≻ b) of two answers: from the log-probs of the verdict where the endpoint gives them, else 1, ½ or 0. It may like a
    place, so it is asked in both orders."""

    @property
    def symmetric(self) -> bool:
        return False

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Float[Tensor, "n"]:
        asked = [put(self.question, c.prompt, a=x, b=y) for c, x, y in zip(contexts, a, b, strict=True)]
        return torch.tensor([self._preferred(one) for one in self.replies(asked)], dtype=torch.float64)

    def _preferred(self, reply: Reply | str) -> float:
        if isinstance(reply, str):
            return self.failed(reply)
        try:
            said, word = verdict_of(reply.text)
        except Unsaid as unsaid:
            return self.failed(f"a reply gives no verdict: {unsaid}", reply)
        sure = sure_of(reply.text, word, reply.tokens)
        self.spent.soft += sure is not None
        return said if sure is None else sure


def _rubric(asked: Asked) -> str | None:
    """The rubric's text. Refuses a file that cannot be read, or is not the one whose hash was given."""
    if asked.rubric is None:
        return None
    where = plain(asked.rubric, 200)
    try:
        text = Path(asked.rubric).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Refusal(
            f"the rubric {where} cannot be read ({type(error).__name__}); it must be a text file in UTF-8."
        ) from None
    sha = hashlib.sha256(text.encode()).hexdigest()
    if asked.rubric_sha is not None and not sha.startswith(asked.rubric_sha):
        raise Refusal(f"the rubric {where} has changed: its SHA-256 begins {sha[:12]}, not {asked.rubric_sha}.")
    return text

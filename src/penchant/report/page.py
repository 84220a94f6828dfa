"""The page a person opens afterwards: one HTML file that loads nothing and runs nothing. Every string that reaches it is
made plain and escaped on the way out, by the template engine, for all places at once; nothing here judges the run."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from penchant.evaluation.evidence import RunEvidence, SampleEvidence
from penchant.evaluation.verdict import Verdict, before_after
from penchant.report import facts
from penchant.report.sheets import sheet
from penchant.words import plain

PROMPTS = 12
"""Prompts shown with their samples."""
SAMPLES = 8
"""Samples shown for each of them."""
FOLD = 600
"""Characters of a text shown before the rest is folded away."""
LONGEST = 4000
"""Characters of a text that the page holds at most; it says how many there were."""


@dataclass(frozen=True)
class Text:
    """A text of a model or a data set, cut to what the page shows."""

    start: str
    rest: str
    total: int

    @classmethod
    def of(cls, text: str) -> Text:
        return cls(text[:FOLD], text[FOLD:LONGEST], len(text))

    @property
    def missing(self) -> int:
        """Characters the page leaves out."""
        return self.total - len(self.start) - len(self.rest)


@dataclass(frozen=True)
class Sample:
    """One response and its numbers."""

    text: Text
    facts: tuple[str, ...]
    score: float | None


@dataclass(frozen=True)
class Shown:
    """One prompt with its responses before and after, side by side."""

    prompt: Text
    rows: tuple[tuple[Sample | None, Sample | None], ...]
    means: tuple[float | None, float | None]
    hidden: int
    """Samples that were drawn and are not shown."""


def render(evidence: RunEvidence, verdict: Verdict, *, samples: bool = True) -> str:
    """The page as one HTML string. `samples=False` leaves out every prompt and every response."""
    from penchant.report.charts import curves, distributions
    from penchant.report.instruments import instruments

    return template("page.html").render(
        **styles(),
        evidence=evidence,
        verdict=verdict,
        rows=before_after(evidence),
        equations=facts.equations(evidence),
        accounting=facts.accounting(evidence),
        split=facts.split(evidence),
        steps=facts.steps(evidence),
        curves=curves(evidence),
        remembered=facts.remembered(evidence),
        distributions=distributions(evidence),
        instruments=instruments(evidence),
        shown=side_by_side(evidence) if samples and evidence.speaks else [],
        sheet=sheet(evidence) if samples else [],
        texts_left_out=not samples and (evidence.samples_before or evidence.samples_after) is not None,
        settings=facts.listed(evidence.settings),
        choices=facts.listed(evidence.choices),
        command=facts.command(evidence),
        title=facts.title(evidence, facts.named(evidence, "objective")),
        facts=facts,
    )


def styles() -> dict[str, Any]:
    """The sheet that every page carries, and its hash for the policy that lets nothing else in."""
    css = own("page.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return {"css": Markup(css), "style_hash": f"sha256-{digest}"}


def own(name: str) -> str:
    """A file that lies beside this one."""
    return files("penchant.report").joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Any:
    """A page's template. `finalize` sees every value that is written: strings lose control and direction characters there,
    and autoescape does the rest, so that no place can be forgotten."""
    environment = Environment(
        loader=FunctionLoader(own),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=neutral,
    )
    return environment.get_template(name)


def neutral(value: Any) -> Any:
    """Strings without control, format and surrogate characters and of bounded length; markup of our own as it is."""
    return plain(value, LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value


def side_by_side(evidence: RunEvidence) -> list[Shown]:
    """The first prompts with what the model said to them before and after."""
    before, after = evidence.samples_before, evidence.samples_after
    known = after or before
    if known is None:
        return []
    shown = []
    for i, prompt in enumerate(known.prompts[:PROMPTS]):
        left, right = responses(before, i), responses(after, i)
        count = max(len(left), len(right))
        rows = tuple((at(left, k), at(right, k)) for k in range(min(count, SAMPLES)))
        shown.append(Shown(Text.of(prompt), rows, (mean(left), mean(right)), max(0, count - SAMPLES)))
    return shown


def responses(samples: SampleEvidence | None, i: int) -> list[Sample]:
    """What was said to prompt i."""
    if samples is None or i >= len(samples.texts):
        return []
    said = []
    for k, text in enumerate(samples.texts[i]):
        score = None if samples.scores is None else samples.scores[i][k]
        numbers = [f"{samples.lengths[i][k]} tokens" + ("" if samples.stopped[i][k] else ", cut at the limit")]
        if samples.kl is not None:
            numbers.append(f"KL {samples.kl[i][k]:.1f} nats")
        if samples.scores is not None and score is None:
            numbers.append("judging failed")
        said.append(Sample(Text.of(text), tuple(numbers), score))
    return said


def at(samples: list[Sample], k: int) -> Sample | None:
    """The k-th sample where there is one."""
    return samples[k] if k < len(samples) else None


def mean(samples: list[Sample]) -> float | None:
    """The mean score of those that were judged."""
    given = [s.score for s in samples if s.score is not None]
    return sum(given) / len(given) if given else None

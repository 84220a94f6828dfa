"""What a run may have cost: collapsed texts, chosen responses made improbable, lengths that drifted. Whether the run
reached its goal is the business of goal.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from penchant.evaluation import pairs, samples
from penchant.evaluation.evidence import RunEvidence, SampleEvidence
from penchant.evaluation.goal import Goal
from penchant.evaluation.rules import Finding, Rules, numbers
from penchant.evaluation.statistics import Estimate, difference, short


@dataclass
class _Signs:
    """Signs of collapse. One in the texts themselves is needed: a large KL or a low entropy alone is only distance."""

    texts: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    alone: bool = False
    """Whether one of them is enough by itself."""
    found: dict[str, object] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.alone or (bool(self.texts) and len(self.texts) + len(self.numbers) >= 2)

    @property
    def said(self) -> str:
        signs = self.texts + self.numbers
        return signs[0] if len(signs) == 1 else f"{', '.join(signs[:-1])} and {signs[-1]}"


def collapsed(evidence: RunEvidence, goal: Goal, rules: Rules) -> Finding:
    """Everything begins to sound the same: fewer distinct words at equal length, loops, no choice left, far from the
    reference."""
    before, after = evidence.samples_before, evidence.samples_after
    if before is None or after is None or len(after.prompts) < rules.least_prompts:
        return Finding("collapsed", False, "Too few samples from before and after were kept to compare the texts.", {})
    samples.same_prompts(before, after)
    signs = _Signs()
    _diversity(signs, before, after, rules)
    _repetition(signs, before, after, rules)
    _emptiness(signs, before, after, rules)
    _entropy(signs, before, after, rules)
    _distance(signs, after, rules)
    if signs.holds:
        if goal.rose:
            said = f"{goal.said}, but {signs.said}: it was bought by collapse."
        else:
            said = f"The answers have collapsed: {signs.said}."
        return Finding("collapsed", True, said, signs.found)
    if signs.texts or signs.numbers:
        said = f"Worth watching: {signs.said}; the texts have not collapsed."
    else:
        said = "The answers are about as varied as before."
    return Finding("collapsed", False, said, signs.found)


def _diversity(signs: _Signs, before: SampleEvidence, after: SampleEvidence, rules: Rules) -> None:
    found = samples.diversity(before, after)
    if found is None:
        return
    old, new, change = found
    signs.found |= {"distinct2_before": old, "distinct2_after": new, **numbers(distinct2_log_change=change)}
    kept = math.exp(change.value)
    if kept < rules.diversity_low and change.high < 0:
        signs.texts.append(f"distinct-2 fell from {old:.2f} to {new:.2f} at equal length")
        signs.alone |= kept < rules.diversity_lost


def _repetition(signs: _Signs, before: SampleEvidence, after: SampleEvidence, rules: Rules) -> None:
    # Not cut to equal length: a loop often begins late, and length alone adds no more than a few points.
    change = difference(samples.repetitions(before), samples.repetitions(after), resamples=rules.resamples)
    signs.found |= numbers(repetition_change=change)
    if change.value >= rules.repeating and change.low > 0:
        new = sum(samples.repetitions(after)) / len(after.prompts)
        signs.texts.append(f"answers repeat themselves ({100 * new:.0f} % of three-word runs were said before)")


def _emptiness(signs: _Signs, before: SampleEvidence, after: SampleEvidence, rules: Rules) -> None:
    empty = lambda e: sum(not t.strip() for row in e.texts for t in row) / max(1, sum(map(len, e.texts)))  # noqa: E731
    old, new = empty(before), empty(after)
    signs.found["empty_after"] = new
    if new > rules.empty and new > old:
        signs.texts.append(f"{100 * new:.0f} % of the answers are empty")
        signs.alone = True


def _entropy(signs: _Signs, before: SampleEvidence, after: SampleEvidence, rules: Rules) -> None:
    old, new = (samples.entropy(e, resamples=rules.resamples) for e in (before, after))
    signs.found |= numbers(entropy_before=old, entropy_after=new)
    change = samples.entropy_change(before, after, resamples=rules.resamples)
    if new.value < rules.entropy_lost * old.value and change.high < 0:
        signs.numbers.append(f"the choice per token fell from {short(old.value)} to {short(new.value)} nats")


def _distance(signs: _Signs, after: SampleEvidence, rules: Rules) -> None:
    whole = samples.kl(after, resamples=rules.resamples)
    token = samples.kl(after, per_token=True, resamples=rules.resamples)
    if whole is None or token is None:
        return
    signs.found |= numbers(kl=whole, kl_per_token=token, kl_plain=samples.kl_plain(after, resamples=rules.resamples))
    if token.value > rules.kl_token:
        signs.numbers.append(f"the KL reached {whole.value:.0f} nats a response ({short(token.value)} a token)")


def chosen_falling(evidence: RunEvidence, rules: Rules) -> Finding:
    """The chosen responses themselves became less probable, per token, by more than is usual."""
    word = "chosen falling"
    before, after = evidence.pairs_before, evidence.pairs_after
    if before is None or after is None or len(after.numbers) < rules.least_pairs:
        return Finding(word, False, "Too few unseen pairs from before and after to follow the chosen responses.", {})
    moved = pairs.displacement(before, after, resamples=rules.resamples)
    found = numbers(chosen=moved.chosen, rejected=moved.rejected)
    both = (
        f"On unseen pairs log π of the chosen responses moved by {moved.chosen.number(signed=True)} nats per token, "
        f"of the rejected by {moved.rejected.number(signed=True)}"
    )
    if moved.chosen.high < -rules.falling:
        said = f"The chosen responses became much less probable. {both}. What took their place is in neither column; "
        said += "a term for the chosen (`+ 0.1 * NLL()`), a larger beta or a smaller learning rate holds them up."
        return Finding(word, True, said, found)
    if moved.chosen.high < 0:
        said = f"{both}. A small fall is usual: losses on pairs see only the difference."
        return Finding(word, False, said, found)
    return Finding(word, False, f"{both}: the chosen did not fall.", found)


def length_drift(evidence: RunEvidence, rules: Rules) -> Finding:
    """Answers grew or shrank by more than a quarter, or stopped (or began) to end by themselves."""
    word, before, after = "length drift", evidence.samples_before, evidence.samples_after
    if before is None or after is None or len(after.prompts) < rules.least_prompts:
        return Finding(word, False, "Too few samples from before and after to compare lengths.", {})
    ratio = samples.length_ratio(before, after, resamples=rules.resamples)
    old, new = (sum(samples.per_prompt_lengths(e)) / len(e.prompts) for e in (before, after))
    ending = difference(samples.stopped_by_prompt(before), samples.stopped_by_prompt(after), resamples=rules.resamples)
    found = numbers(tokens_before=old, tokens_after=new, ratio=ratio, stopped_change=ending)
    lengths = f"from {old:.0f} to {new:.0f} tokens ({_percent(ratio)})"
    signs = []
    if abs(ratio.value - 1) > rules.drift and abs(new - old) >= rules.drift_tokens and not ratio.low <= 1 <= ratio.high:
        signs.append(f"the answers went {lengths}")
    if abs(ending.value) > rules.stopping and not ending.low <= 0 <= ending.high:
        ends = [sum(samples.stopped_by_prompt(e)) / len(e.prompts) for e in (before, after)]
        signs.append(f"{100 * ends[1]:.0f} % of them end by themselves, before {100 * ends[0]:.0f} %")
    if signs:
        return Finding(word, True, f"Length drifted: {'; '.join(signs)}.", found)
    return Finding(word, False, f"Lengths are about the same: {lengths}.", found)


def _percent(ratio: Estimate) -> str:
    return Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1, ratio.n).percent(signed=True)


def over_optimised(evidence: RunEvidence, goal: Goal, rules: Rules) -> Finding | None:
    """What was aimed at was reached while an independent judge's score surely fell: the goal was bought with what it stands for
    (Gao et al. 2023, arXiv 2210.10760, whose gold reward falls while the proxy rises). None without a guard."""
    before, after = evidence.samples_before, evidence.samples_after
    if before is None or after is None:
        return None
    word, found = "over-optimised", samples.guard_change(before, after, resamples=rules.resamples)
    if found is None:
        return None
    old, new, change = found
    told = numbers(before=old, after=new, change=change)
    went = (
        f"the guard {after.guarded_by!r} went from {short(old.value)} to {short(new.value)} ({change.number(signed=True)})"
    )
    if change.n < rules.least_prompts:
        return Finding(word, False, f"Only {change.n} prompts were judged by the guard before and after.", told)
    if change.high < 0 and goal.rose:
        said = (
            f"What was aimed at rose, but {went}: the gain was paid with what it stands for. More pull to the reference (a "
        )
        said += "larger beta or kappa), fewer steps or a smaller learning rate hold it."
        return Finding(word, True, said, told)
    if change.high < 0:
        return Finding(word, False, f"The guard fell, and so did what was aimed at, or it did not rise: {went}.", told)
    return Finding(word, False, f"The guard did not surely fall: {went}.", told)

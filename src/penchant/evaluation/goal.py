"""Did the run reach what it was run for: learned, nothing learned, memorised, or too little held out to tell.
What it cost to get there is the business of harm.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penchant.evaluation import history, pairs, samples
from penchant.evaluation.evidence import PairEvidence, RunEvidence, SampleEvidence
from penchant.evaluation.rules import Finding, Rules, numbers
from penchant.evaluation.statistics import apart, mean, share
from penchant.words import figure


@dataclass(frozen=True)
class Goal:
    """The one measure a run is judged by. There is one only, so that a run has one chance of being lucky."""

    measured: bool
    rose: bool
    said: str
    """"On 250 unseen pairs …", without a full stop."""
    evidence: dict[str, Any]


def goal(evidence: RunEvidence, rules: Rules) -> Goal:
    """The judge's score on unseen prompts where the run sampled its own data or has no pairs held out; else what happened
    to unseen pairs. Both need a model to compare with: improvement, not a level, is what was learned."""
    before, after = evidence.samples_before, evidence.samples_after
    sampled = history.on_policy(evidence) or evidence.pairs_after is None
    if sampled and before is not None and after is not None and before.scores and after.scores:
        return _score(before, after, rules, str(evidence.settings.get("split", "prompt")))
    if evidence.pairs_before is not None and evidence.pairs_after is not None:
        return _pairs(evidence.pairs_before, evidence.pairs_after, rules)
    return Goal(
        False,
        False,
        "No unseen pairs and no judged answers from before and after were kept, so nothing shows what was learned",
        {},
    )


def _score(before: SampleEvidence, after: SampleEvidence, rules: Rules, split: str) -> Goal:
    change = samples.score_change(before, after, resamples=rules.resamples)
    count = 0 if change is None else change.n
    if change is None or count < rules.least_prompts:
        said = f"Only {count} unseen prompts were judged before and after; {rules.least_prompts} are needed to compare"
        return Goal(False, False, said, numbers(prompts=count))
    old, new = samples.score(before, resamples=rules.resamples), samples.score(after, resamples=rules.resamples)
    assert old is not None and new is not None
    lost = samples.judged(before) - samples.judged(after)
    verb = "rose" if change.low > 0 else "fell" if change.high < 0 else "went"
    whose = "held-out rows" if split == "row" else "unseen prompts"
    places = next((n for n in range(2, 7) if f"{old.value:.{n}f}" != f"{new.value:.{n}f}"), 2)  # enough to see it move
    was, now, low, high = (
        figure(x, f"{sign}.{places}f")
        for x, sign in zip((old.value, new.value, change.low, change.high), ("", "", "+", "+"), strict=True)
    )
    said = f"On {count} {whose} the judge's score {verb} from {was} to {now} [{low}, {high}]"
    if lost > 0.05:
        said += f", but {100 * lost:.0f} % fewer answers could be judged at all"
    found = numbers(
        before=old, after=new, change=change, judged_before=samples.judged(before), judged_after=samples.judged(after)
    )
    return Goal(True, change.low > 0 and lost <= 0.05, said, found)


def _pairs(before: PairEvidence, after: PairEvidence, rules: Rules) -> Goal:
    n = len(after.numbers)
    gains = pairs.gains(before, after)
    if n < rules.least_pairs:
        said = f"Only {n} unseen pairs were held out; {rules.least_pairs} are needed to tell learning from luck"
        return Goal(False, False, said, numbers(pairs=n))
    towards = share(pairs.hits(gains), after.groups)
    gain = mean(gains, after.groups, resamples=rules.resamples)
    accuracy = pairs.accuracy(after)
    found = numbers(pairs=n, towards_chosen=towards, margin_gain=gain, accuracy=accuracy)
    if not any(pairs.margins(before)):
        said = f"On {n} unseen pairs the model prefers the chosen response in {towards.percent()} (a guess gets 50 %)"
    else:
        was = pairs.accuracy(before)
        found |= numbers(accuracy_before=was)
        said = f"On {n} unseen pairs training moved {towards.percent()} towards the chosen response (a guess gets 50 %); "
        said += f"accuracy went from {100 * was.value:.1f} % to {100 * accuracy.value:.1f} %"
    said += f", and the margin {'grew' if gain.value > 0 else 'moved'} by {gain.number(signed=True)}"
    return Goal(True, towards.low > 0.5 and gain.low > 0, said, found)


def unmoved(evidence: RunEvidence, rules: Rules) -> str | None:
    """Why the model after training is the model before it, or None. What a model says of held-out text counts for more
    than what its loss curve looked like."""
    if evidence.pairs_before is not None and evidence.pairs_after is not None:
        moved = pairs.movement(evidence.pairs_before, evidence.pairs_after)
        what, unit = ("log-probs", " nats") if evidence.speaks else ("scores", "")
        return f"the {what} of unseen responses moved by {moved:.1e}{unit} on average" if moved < rules.moved else None
    before, after = evidence.samples_before, evidence.samples_after
    if before is not None and after is not None:
        if before.texts == after.texts and before.logp == after.logp:
            return "the same seed gives the same samples with the same log-probs as before"
        return None
    return history.dead(evidence, rules)


def learned(goal: Goal, dead: str | None) -> Finding:
    """The goal was reached beyond chance, by a model that moved."""
    return Finding("learned", goal.rose and dead is None, f"{goal.said}.", goal.evidence)


def nothing_learned(goal: Goal, dead: str | None) -> Finding:
    """The model did not move at all; or it moved, and unseen data does not show it for the better."""
    word = "nothing learned"
    if dead is not None:
        said = f"Nothing was learned: {dead}. Check the learning rate, and that the trained parameters take gradient."
        return Finding(word, True, said, {"dead": True, **goal.evidence})
    if not goal.measured or goal.rose:
        said = "The model moved." if not goal.measured else "The model moved, and unseen data shows it."
        return Finding(word, False, said, {"dead": False})
    said = f"Nothing was learned that shows on unseen data: {_small(goal.said)}."
    return Finding(word, True, said, {"dead": False, **goal.evidence})


def not_measured(goal: Goal, dead: str | None, stopped: bool) -> Finding:
    """Too little was held out to say whether anything was learned, or the run was stopped before it was measured."""
    holds = not goal.measured and dead is None
    mend = "The run did not come to its last measurement" if stopped else "Hold more out to know whether it learned"
    said = f"{goal.said}. {mend}." if holds else "Enough was kept to tell."
    return Finding("not measured", holds, said, {})


def memorised(goal: Goal, evidence: RunEvidence, rules: Rules) -> Finding:
    """Far better on the pairs it saw than on those it did not, while the unseen ones do not show learning or have fallen
    from their best. A gap beside true learning is reported, and is no alarm."""
    seen, unseen = evidence.train_pairs, evidence.pairs_after
    least = rules.least_pairs
    if seen is None or unseen is None or len(seen.numbers) < least or len(unseen.numbers) < least:
        return Finding("memorised", False, "Seen and unseen pairs were not both measured, so memory cannot be told.", {})
    on_seen, on_unseen = pairs.accuracy(seen), pairs.accuracy(unseen)
    gap = apart(on_seen, on_unseen)
    fallen = _fallen(evidence)
    holds = gap.low > rules.gap and (not goal.rose or fallen is not None)
    found = numbers(seen=on_seen, unseen=on_unseen, gap=gap, best_accuracy=fallen)
    said = f"Accuracy is {on_seen.percent()} on pairs it saw and {on_unseen.percent()} on pairs it did not"
    if holds:
        after = f", where it had reached {100 * fallen:.1f} % before" if fallen is not None else ""
        return Finding("memorised", True, f"{said}{after}: it memorised. Fewer epochs or more pairs would help.", found)
    if gap.low > rules.gap:
        said += ": it remembers what it saw, and has learned beyond it too"
    return Finding("memorised", False, f"{said}.", found)


def _fallen(evidence: RunEvidence) -> float | None:
    """The best accuracy during training if its whole interval lies above where it ended."""
    evals = [line for line in history.lines(evidence, "eval") if {"accuracy", "accuracy/low"} <= line.keys()]
    if len(evals) < 2:
        return None
    best = max(evals, key=lambda line: line["accuracy"])
    return best["accuracy"] if best["accuracy/low"] > evals[-1]["accuracy"] else None


def _small(said: str) -> str:
    return said[0].lower() + said[1:]

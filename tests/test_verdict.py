"""Every word of the verdict: evidence that earns it, evidence that only comes near, and chance.
The evidence is made up here; real runs are judged where they are made."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.evaluation.evidence import PairEvidence, RunEvidence, SampleEvidence
from penchant.evaluation.rules import SEVERITY, Rules
from penchant.evaluation.table import before_after
from penchant.evaluation.verdict import Verdict, judge_run

FAST = Rules(resamples=1000)
VOCABULARY = [f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu", "na", "po", "ri", "su", "to") for b in "abcdefghij"]


def pair_set(
    n: int, *, gain: float = 0.0, spread: float = 3.0, fall: float = 0.0, tokens: int = 50, seed: int = 0
) -> PairEvidence:
    """n pairs of a DPO run, beta 0.1: margins in nats drawn around `gain`, the chosen fallen by `fall` nats a token."""
    generator = np.random.default_rng(seed)
    ref = generator.normal(-100, 10, (2, n))
    chosen = generator.normal(-fall * tokens, spread / 2, n)
    rejected = chosen - generator.normal(gain, spread, n)
    return PairEvidence(
        list(range(n)),
        (0.1 * chosen).tolist(),
        (0.1 * rejected).tolist(),
        (ref[0] + chosen).tolist(),
        (ref[1] + rejected).tolist(),
        [tokens] * n,
        [tokens] * n,
        ref[0].tolist(),
        ref[1].tolist(),
    )


def at_reference(pairs: PairEvidence) -> PairEvidence:
    assert pairs.ref_chosen is not None and pairs.ref_rejected is not None
    zero = [0.0] * len(pairs.numbers)
    return replace(
        pairs, reward_chosen=zero, reward_rejected=zero, logp_chosen=pairs.ref_chosen, logp_rejected=pairs.ref_rejected
    )


def answers(
    n: int = 40,
    *,
    score: float = 0.2,
    length: int = 30,
    entropy: float = 2.0,
    kl: float = 0.0,
    said: str | None = None,
    stopped: float = 0.8,
    seed: int = 0,
) -> SampleEvidence:
    """n prompts with two answers each; varied words, or always `said`, cut to about `length` tokens."""
    generator = np.random.default_rng(seed)
    rows, counts = [], []
    for _ in range(n):
        sizes = [max(1, int(generator.normal(length, 3))) for _ in range(2)]
        words = [(said.split() * size if said else generator.choice(VOCABULARY, size).tolist())[:size] for size in sizes]
        rows.append([" ".join(w) for w in words])
        counts.append(sizes)
    logp = [[-entropy * c + float(generator.normal(0, 1)) for c in row] for row in counts]
    return SampleEvidence(
        prompts=[f"prompt {i}" for i in range(n)],
        texts=rows,
        lengths=counts,
        stopped=[[bool(generator.random() < stopped) for _ in row] for row in counts],
        logp=logp,
        ref=[[v - kl * c for v, c in zip(l, row, strict=True)] for l, row in zip(logp, counts, strict=True)],
        kl=[[kl * c for c in row] for row in counts],
        scores=[[float(generator.normal(score, 0.2)) for _ in row] for row in counts],
        judge="toy",
    )


def steps(losses: list[float] | None = None, norms: list[float] | None = None) -> list[dict[str, Any]]:
    """The lines of a run; by default a loss that falls from log 2 to 0.5 with some noise."""
    noise = np.random.default_rng(1).normal(0, 0.02, 60)
    losses = [0.693 - 0.19 * i / 60 + float(noise[i]) for i in range(60)] if losses is None else losses
    norms = [1.0 + float(noise[i % 60]) for i in range(len(losses))] if norms is None else norms
    return [
        {"kind": "step", "step": i + 1, "loss": l, "grad_norm": g, "lr": 1e-5}
        for i, (l, g) in enumerate(zip(losses, norms, strict=True))
    ]


def run(**parts: Any) -> RunEvidence:
    return RunEvidence(**{"settings": {}, "choices": {}, "data": {}, "history": steps(), **parts})


def offline(after: PairEvidence, **parts: Any) -> RunEvidence:
    return run(pairs_before=at_reference(after), pairs_after=after, **parts)


def online(before: SampleEvidence, after: SampleEvidence, **parts: Any) -> RunEvidence:
    lines = [*steps(), {"kind": "round", "step": 30, "round": 1, "score": 0.3}]
    return run(**{"samples_before": before, "samples_after": after, "history": lines, **parts})


HEALTHY = offline(
    pair_set(250, gain=1.3, fall=0.02),
    train_pairs=pair_set(250, gain=2.2, seed=5),
    samples_before=answers(seed=1),
    samples_after=answers(seed=2, kl=0.02, entropy=1.8),
)
HEALTHY_ONLINE = online(answers(seed=1), answers(seed=2, score=0.6, kl=0.1, entropy=1.6, length=33))
COLLAPSED = online(
    answers(130, score=0.24),
    answers(130, score=0.87, kl=1.1, entropy=0.4, said="I'm thrilled to share that", stopped=0.8, seed=3),
)


def words(evidence: RunEvidence) -> set[str]:
    return {f.word for f in judge_run(evidence, FAST).held}


def finding(evidence: RunEvidence, word: str) -> Any:
    return next(f for f in judge_run(evidence, FAST).findings if f.word == word)


@pytest.mark.parametrize("evidence", [HEALTHY, HEALTHY_ONLINE])
def test_a_healthy_run_has_learned_and_nothing_else(evidence: RunEvidence):
    verdict = judge_run(evidence, FAST)
    assert (verdict.word, verdict.ok, [f.word for f in verdict.held]) == ("learned", True, ["learned"])


def test_the_sentence_of_a_learned_run_has_its_number_and_interval():
    said = judge_run(HEALTHY).sentence
    assert said.startswith("On 250 unseen pairs the model prefers the chosen response in 6")
    assert "(a guess gets 50 %)" in said and "[" in said


def test_the_known_figure_of_64_percent_on_250_pairs_is_learned_and_55_on_130_is_not():
    def with_share(right: int, n: int) -> RunEvidence:
        base = pair_set(n)
        margins = [1.3 if i < right else -1.0 for i in range(n)]
        reward = [0.1 * m for m in margins]
        logp = [r + m for r, m in zip(base.ref_chosen or [], margins, strict=True)]
        return offline(
            replace(
                base,
                reward_chosen=reward,
                reward_rejected=[0.0] * n,
                logp_chosen=logp,
                logp_rejected=base.ref_rejected or [],
            )
        )

    known = judge_run(with_share(161, 250), FAST)
    assert known.word == "learned" and "64.4 % [58.3, 70.1]" in known.sentence
    chance = judge_run(with_share(72, 130), FAST)
    assert (chance.word, chance.ok) == ("nothing learned", False)
    assert chance.sentence.startswith("Nothing was learned that shows on unseen data: on 130 unseen pairs")


def test_chance_alone_is_called_learned_no_more_often_than_stated():
    """200 runs whose margins move by chance, and 200 whose scores do: 2.5 % expected, so 5 of 200; 11 has p < 1 %."""
    pairs = sum("learned" in words(offline(pair_set(60, seed=i), history=steps())) for i in range(200))
    scores = sum("learned" in words(online(answers(16, seed=i), answers(16, seed=i + 999))) for i in range(200))
    assert pairs <= 11 and scores <= 11


def test_chance_alone_sets_off_no_alarm():
    alarms = {"collapsed", "memorised", "unstable", "length drift", "chosen falling"}
    for i in range(40):
        evidence = online(answers(16, seed=i), answers(16, seed=i + 999), train_pairs=pair_set(60, seed=i))
        evidence = replace(evidence, pairs_before=at_reference(pair_set(60, seed=i)), pairs_after=pair_set(60, seed=i))
        assert not words(evidence) & alarms


def test_a_reference_free_method_has_learned_only_what_it_did_not_begin_with():
    strong = pair_set(200, gain=5, seed=1)
    strong = replace(strong, ref_chosen=strong.logp_chosen, ref_rejected=strong.logp_rejected)
    noise = np.random.default_rng(0).normal(0, 0.05, 200)
    drifted = replace(
        strong,
        reward_chosen=[r + float(e) for r, e in zip(strong.reward_chosen, noise, strict=True)],
        logp_chosen=[v + 10 * float(e) for v, e in zip(strong.logp_chosen, noise, strict=True)],
    )
    same = judge_run(run(pairs_before=strong, pairs_after=drifted), FAST)
    assert same.word == "nothing learned" and "accuracy went from 9" in same.sentence
    better = replace(drifted, reward_chosen=[r + 0.1 for r in drifted.reward_chosen])
    assert judge_run(run(pairs_before=strong, pairs_after=better), FAST).word == "learned"
    assert judge_run(run(pairs_after=strong), FAST).word == "not measured"


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (run(history=[]), "no optimiser step"),
        (run(history=steps([0.7 + 0.01 * (i % 7) for i in range(20)], [0.0] * 20)), "no gradient norm in 20 steps"),
        (run(history=steps([0.6931] * 20)), "the loss stood at 0.6931"),
        (run(history=[{**line, "lr": 0.0} for line in steps()]), "the learning rate was 0"),
        (offline(at_reference(pair_set(60))), "moved by 0.0e+00 nats"),
        (online(answers(seed=1), answers(seed=1)), "the same seed gives the same samples"),
        (online(answers(4, seed=1), answers(4, seed=1)), "the same seed gives the same samples"),
    ],
)
def test_a_dead_run_has_learned_nothing_and_fails(evidence: RunEvidence, why: str):
    verdict = judge_run(evidence, FAST)
    assert (verdict.word, verdict.ok) == ("nothing learned", False)
    assert why in verdict.sentence


def test_a_rate_too_small_to_matter_is_no_learning_though_every_pair_moved_the_right_way():
    tiny = pair_set(100, gain=0.002, spread=0.0002)
    verdict = judge_run(offline(tiny), FAST)
    assert verdict.word == "nothing learned" and "moved by" in verdict.sentence


def test_too_little_held_out_is_said_and_is_no_failure():
    few = judge_run(offline(pair_set(12, gain=9)), FAST)
    assert (few.word, few.ok) == ("not measured", True)
    assert "Only 12 unseen pairs" in few.sentence
    assert judge_run(online(answers(6), answers(6, score=0.9, seed=1)), FAST).word == "not measured"
    assert judge_run(run(), FAST).word == "not measured"


def test_the_prototypes_collapse_is_seen_behind_its_rising_score():
    verdict = judge_run(COLLAPSED, FAST)
    assert (verdict.word, verdict.ok) == ("collapsed", False)
    assert {f.word for f in verdict.held} >= {"collapsed", "learned"}
    said = verdict.sentence
    assert said.startswith("On 130 unseen prompts the judge's score rose from 0.26 to 0.86 [+0.57, +0.64], but")
    assert "distinct-2 fell from" in said and "the KL reached" in said and said.endswith("it was bought by collapse.")


def test_collapse_without_a_better_score_and_into_silence_is_seen_too():
    worse = online(answers(score=0.5), answers(score=0.2, said="yes yes", seed=2))
    assert judge_run(worse, FAST).sentence.startswith("The answers have collapsed: distinct-2 fell")
    silent = replace(answers(seed=2), texts=[["", ""]] * 40, lengths=[[1, 1]] * 40)
    assert "100 % of the answers are empty" in judge_run(online(answers(), silent), FAST).sentence


def test_answers_that_share_an_opening_or_go_far_have_not_collapsed():
    opened = answers(seed=2, score=0.6)
    opened = replace(opened, texts=[["I am sorry but " + t for t in row] for row in opened.texts])
    far = answers(seed=3, score=0.6, kl=0.8, entropy=0.6)
    assert "collapsed" not in words(online(answers(), opened))
    assert "collapsed" not in words(online(answers(), far))
    assert finding(online(answers(), far), "collapsed").sentence.startswith("Worth watching: the choice per token fell")


def test_a_loop_that_begins_every_answer_is_a_collapse_though_each_answer_goes_on_otherwise():
    """What the prototype's model said: sixteen words, of which the first ten are "I'm thrilled to share that", twice."""
    before, rest = answers(12, length=18), answers(12, length=7, score=0.9, kl=1.0, entropy=1.1, seed=4)
    opening = "I'm thrilled to share that " * 2
    after = replace(rest, texts=[[opening + t for t in row] for row in rest.texts], lengths=before.lengths)
    assert judge_run(online(before, after), FAST).word == "collapsed"


def pandalm(folder: Path) -> dict[str, dict[str, str]]:
    """Real answers of five models: instruction → model → answer."""
    found: dict[str, dict[str, str]] = {}
    for row in json.loads((folder / "pandalm_human" / "testset-v1.json").read_text()):
        said = found.setdefault(f"{row['instruction']}\n{row['input']}", {})
        for name, answer in zip(row["cmp_key"].split("_"), (row["response1"], row["response2"]), strict=True):
            said[name] = str(answer)
    return found


def test_real_answers_of_different_models_have_not_collapsed_into_each_other(shared_data: Path):
    by_prompt = pandalm(shared_data)
    names = sorted({name for said in by_prompt.values() for name in said})
    for one, other in itertools.combinations(names, 2):
        both = [said for said in by_prompt.values() if one in said and other in said]
        assert len(both) > 100
        before, after = (
            replace(answers(len(both), seed=1), texts=[[said[name]] for said in both], lengths=[[9]] * len(both))
            for name in (one, other)
        )
        assert "collapsed" not in words(online(before, after))


@st.composite
def odd_samples(draw: st.DrawFn) -> SampleEvidence:
    """Anything a model and a judge may leave for nine prompts: empty answers, failed judgements, no reference."""
    texts = draw(
        st.lists(
            st.lists(st.sampled_from(["", " ", "a", "a b a b", "今日"]), min_size=2, max_size=2), min_size=9, max_size=9
        )
    )
    number = st.floats(-1e3, 1e3)
    table = lambda values: draw(st.lists(st.lists(values, min_size=2, max_size=2), min_size=9, max_size=9))  # noqa: E731
    return SampleEvidence(
        [str(i) for i in range(9)],
        texts,
        table(st.integers(0, 5)),
        table(st.booleans()),
        table(number),
        draw(st.none() | st.just(table(number))),
        draw(st.none() | st.just(table(st.floats(0, 1e6)))),
        draw(st.none() | st.just(table(st.none() | number))),
    )


@given(odd_samples(), odd_samples(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_a_run_leaves_gets_a_verdict_and_a_table(before: SampleEvidence, after: SampleEvidence, paired: bool):
    pairs = pair_set(20) if paired else None
    evidence = online(before, after, pairs_after=pairs, history=[{"kind": "step", "step": 1, "loss": 0.0}])
    verdict = judge_run(evidence, FAST)
    assert verdict.word in SEVERITY and verdict.sentence
    json.dumps(verdict.to_json(), allow_nan=False)
    assert all(isinstance(cell, str) for row in before_after(evidence, resamples=100) for cell in row.cells)


def test_memory_without_learning_is_memorised_and_beside_learning_is_only_said():
    seen = pair_set(200, gain=6, seed=3)
    verdict = judge_run(offline(pair_set(130, gain=0.2, seed=4), train_pairs=seen), FAST)
    assert (verdict.word, verdict.ok) == ("memorised", False)
    assert "it memorised" in verdict.sentence and "Fewer epochs" in verdict.sentence
    both = offline(pair_set(250, gain=1.5, seed=4), train_pairs=seen)
    assert "memorised" not in words(both)
    assert "has learned beyond it too" in finding(both, "memorised").sentence
    evals = [
        {"kind": "eval", "step": s, "accuracy": a, "accuracy/low": a - 0.05, "accuracy/high": a + 0.05}
        for s, a in ((20, 0.80), (40, 0.85), (60, 0.69))
    ]
    assert judge_run(replace(both, history=steps() + evals), FAST).word == "memorised"


def test_chosen_falling_needs_more_than_the_usual_small_fall():
    assert judge_run(offline(pair_set(100, gain=4, fall=0.6)), FAST).word == "chosen falling"
    usual = finding(offline(pair_set(100, gain=4, fall=0.05)), "chosen falling")
    assert not usual.holds and "A small fall is usual" in usual.sentence
    assert "did not fall" in finding(offline(pair_set(100, gain=4, fall=-0.1)), "chosen falling").sentence


def test_length_drift_is_a_quarter_more_or_a_change_of_ending():
    grown = judge_run(online(answers(), answers(score=0.6, length=42, seed=1)), FAST)
    assert grown.word == "length drift" and "from 29 to 42 tokens" in grown.sentence
    assert "length drift" not in words(online(answers(), answers(score=0.6, length=35, seed=1)))
    endless = judge_run(online(answers(), answers(score=0.6, stopped=0.2, seed=1)), FAST)
    assert endless.word == "length drift" and "of them end by themselves" in endless.sentence


FALL = [0.693 - 0.005 * i for i in range(60)]


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (steps([*FALL[:59], float("nan")]), "1 losses or gradient norms are not finite"),
        ([*steps(FALL), {"kind": "step", "step": 61, "loss": None, "grad_norm": None, "lr": 1e-5}], "2 losses or gradient"),
        (steps(FALL, [40.0 if i % 12 == 5 else 1.0 for i in range(60)]), "spiked in 5 of 60 steps"),
        (steps([0.69] * 20 + [0.4 + 0.05 * i for i in range(40)]), "ended above where it began"),
        (steps([0.69 - 0.012 * i for i in range(45)] + [0.15 + 0.03 * i for i in range(15)]), "turned back up"),
        (steps([0.69] * 3 + [2.5 if i % 4 == 0 else 0.05 for i in range(57)]), "were over 3 times the first"),
    ],
)
def test_unstable_runs_are_told_by_their_history(history: list[dict[str, Any]], why: str):
    verdict = judge_run(replace(HEALTHY, history=history), FAST)
    assert (verdict.word, verdict.ok) == ("unstable", False)
    assert why in verdict.sentence


@pytest.mark.parametrize(
    "history",
    [
        steps(FALL, [90.0 if i in (3, 40) else 1.0 for i in range(60)]),
        steps(FALL, [20.0 * 0.9**i for i in range(60)]),
        steps(FALL, [20.0] * 15 + [5.0 if i % 5 == 0 else 0.01 for i in range(45)]),
        steps([0.693 - 0.004 * i + 0.15 * (-1) ** i for i in range(60)]),
        steps([0.693 + float(e) for e in np.random.default_rng(2).normal(0, 0.1, 200)]),
        steps([0.9, 0.1, 5.0]),
    ],
)
def test_two_spikes_fading_gradients_noise_and_batches_that_take_turns_are_steady(history: list[dict[str, Any]]):
    assert judge_run(replace(HEALTHY, history=history), FAST).word == "learned"


def test_a_stopped_run_says_why_and_is_judged_by_what_it_left():
    stopped = judge_run(replace(HEALTHY, stopped_by="the loss of rows 3 and 7 is not finite \x1b[31m"), FAST)
    assert (stopped.word, stopped.ok) == ("stopped", False)
    assert "rows 3 and 7" in stopped.sentence and "\x1b" not in stopped.sentence
    interrupted = judge_run(run(history=[], stopped_by="interrupted"), FAST)
    assert (interrupted.word, interrupted.ok) == ("interrupted", False)
    assert {f.word for f in interrupted.held} == {"interrupted", "not measured"}
    assert "did not come to its last measurement" in interrupted.held[-1].sentence


@pytest.mark.parametrize("evidence", [HEALTHY, COLLAPSED, run(), run(history=[], stopped_by="interrupted")])
def test_a_verdict_survives_json_and_so_does_its_evidence(evidence: RunEvidence):
    verdict = judge_run(evidence, FAST)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False))) == verdict
    again = RunEvidence.from_json(json.loads(json.dumps(evidence.to_json(), allow_nan=False)))
    assert judge_run(again, FAST) == verdict
    assert [f.word for f in verdict.findings] == sorted((f.word for f in verdict.findings), key=SEVERITY.index)


@given(st.randoms(use_true_random=False), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_changes_nothing(random: Any, seed: int):
    after = pair_set(60, gain=0.8, seed=seed)
    order = list(range(60))
    random.shuffle(order)

    def shuffled(p: PairEvidence) -> PairEvidence:
        return replace(p, **{name: [column[i] for i in order] for name, column in vars(p).items() if column is not None})

    one, other = offline(after), run(pairs_before=shuffled(at_reference(after)), pairs_after=shuffled(after))
    assert judge_run(one, FAST) == judge_run(other, FAST)


def test_the_table_shows_before_after_and_a_word():
    rows = {row.name: row for row in before_after(COLLAPSED)}
    assert rows["judge's score (toy)"].word == "better"
    assert rows["distinct-2 at equal length"].word == "worse"
    assert rows["distinct-2 at equal length"].cells[0] == "0.70"
    assert rows["repetition"].word == "worse"
    assert rows["KL to the reference, per response"].cells[0] == "0.00 nats"
    table = {row.name: row for row in before_after(HEALTHY)}
    accuracy = table["implicit accuracy on unseen pairs"]
    assert accuracy.cells[0] == "50.0 %" and accuracy.cells[2].startswith("+") and "points [" in accuracy.cells[2]
    assert accuracy.word == table["margin on unseen pairs"].word == "better"
    assert table["log π per token, chosen"].word == "neutral"
    assert before_after(run()) == []


def guarded(before: float, after: float, n: int = 20) -> tuple[SampleEvidence, SampleEvidence]:
    """Samples whose score rises while the guard goes from one level to another."""
    noise = np.random.default_rng(5).normal(0, 0.05, (2, n, 2))
    sides = zip((answers(n, score=0.3), answers(n, score=0.9, seed=1)), (before, after), noise, strict=True)
    made = [replace(one, guard=(level + x).tolist(), guarded_by="eyes") for one, level, x in sides]
    return made[0], made[1]


def test_a_score_that_was_bought_with_the_guards_is_called_over_optimised():
    bought = judge_run(online(*guarded(0.9, 0.5)))
    assert "over-optimised" in [f.word for f in bought.held] and bought.ok
    assert "the guard 'eyes' went from 0.88 to 0.50" in next(f.sentence for f in bought.held if f.word == "over-optimised")
    for level in (0.9, 0.95):
        kept = judge_run(online(*guarded(0.9, level)))
        assert "over-optimised" in [f.word for f in kept.findings] and "over-optimised" not in [f.word for f in kept.held]
    fell = replace(guarded(0.9, 0.5)[1], scores=guarded(0.9, 0.5)[0].scores)
    assert "over-optimised" not in [f.word for f in judge_run(online(guarded(0.9, 0.5)[0], fell)).held]
    assert not [f for f in judge_run(online(answers(20), answers(20, seed=1))).findings if f.word == "over-optimised"]


def test_the_guards_score_stands_in_the_table():
    row = next(row for row in before_after(online(*guarded(0.9, 0.5))) if row.name.startswith("guard's score"))
    assert row.word == "worse" and row.before is not None and abs(row.before.value - 0.9) < 0.03

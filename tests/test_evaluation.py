"""The numbers of an evaluation against values worked out elsewhere, and what they promise whatever the data.
The words made from them are tested in test_verdict.py."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.domains.base import Encoded, Samples, masks
from penchant.errors import StoppedRun
from penchant.evaluation import pairs, samples, statistics
from penchant.evaluation.evidence import PairEvidence, SampleEvidence
from penchant.evaluation.ranking import ranking_accuracy
from penchant.evaluation.statistics import Estimate
from penchant.objectives import DPO, Pairs, Rollouts, Scored, SimPO
from penchant.rewards import ngrams
from penchant.rewards.base import Judgement

FEW = 1000


def test_wilson_and_exact_tests_give_the_published_numbers():
    assert statistics.wilson(60, 100) == pytest.approx((0.502003, 0.690599), abs=1e-6)
    assert statistics.mcnemar(60, 40) == pytest.approx(0.056888, abs=1e-6)
    assert statistics.mcnemar(15, 5) == pytest.approx(0.041389, abs=1e-6)
    assert statistics.sign_test([1.0] * 15 + [-2.0] * 5 + [0.0] * 9) == statistics.mcnemar(15, 5)
    assert statistics.mcnemar(0, 0) == 1.0


def test_a_share_of_independent_rows_has_wilsons_interval_and_is_not_certain_at_100_percent():
    some = statistics.share([1.0] * 60 + [0.0] * 40)
    assert (some.value, some.low, some.high) == pytest.approx((0.6, 0.502003, 0.690599), abs=1e-6)
    every = statistics.share([1.0] * 100)
    assert every.high == 1.0 and every.low == pytest.approx(1 / (1 + 1.959964**2 / 100), abs=1e-6)
    assert some.percent() == "60.0 % [50.2, 69.1]"


def test_rows_of_one_prompt_count_as_one_where_they_agree():
    hits = [1.0] * 60 + [0.0] * 40
    copies = [h for h in hits for _ in range(5)]
    prompts = [i for i in range(100) for _ in range(5)]
    clustered, naive = statistics.share(copies, prompts), statistics.share(copies)
    alone = statistics.share(hits)
    assert naive.high - naive.low < 0.5 * (alone.high - alone.low)
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low, rel=0.02)
    assert statistics.share([1.0] * 500, prompts).low == pytest.approx(statistics.share([1.0] * 100).low)


def test_the_bootstrap_of_a_mean_agrees_with_students_interval():
    values = np.random.default_rng(3).normal(2.0, 1.0, 200).tolist()
    from scipy import stats

    low, high = stats.t.interval(0.95, 199, np.mean(values), stats.sem(values))
    found = statistics.mean(values)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found == statistics.mean(values[::-1]), "an estimate does not depend on the order of the rows"


@pytest.mark.parametrize(("prompts", "least"), [(8, 0.91), (40, 0.93)])
def test_intervals_hold_what_they_promise_for_few_and_for_many_prompts(prompts: int, least: float):
    """400 draws. The plain percentile interval would cover 88 % of the cases with eight prompts."""
    generator = np.random.default_rng(prompts)
    inside = 0
    for _ in range(400):
        own = generator.normal(0, 1, prompts).repeat(3)
        values = own + generator.normal(0, 1, len(own))
        found = statistics.mean(values.tolist(), np.arange(prompts).repeat(3).tolist(), resamples=FEW)
        inside += found.low <= 0 <= found.high
    assert least <= inside / 400 <= 0.98


def test_a_paired_difference_sees_what_two_unpaired_means_do_not():
    level = np.random.default_rng(0).normal(0, 10, 50)
    before, after = level.tolist(), (level + np.random.default_rng(1).normal(1, 1, 50)).tolist()
    change = statistics.difference(before, after)
    assert change.low > 0 and change.p < 0.01
    assert statistics.apart(statistics.mean(after), statistics.mean(before)).low < 0
    same = statistics.difference(before, before)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


@given(st.lists(st.floats(-100, 100), min_size=8, max_size=14))
@settings(max_examples=40, deadline=None)
def test_p_below_five_percent_and_an_interval_without_zero_say_the_same(values: list[float]):
    change = statistics.difference([0.0] * len(values), values, resamples=FEW)
    assert change.low <= change.value <= change.high
    if change.p < 0.03:
        assert change.low > 0 or change.high < 0
    if change.p > 0.07:
        assert change.low <= 0 <= change.high


def test_one_value_has_no_known_spread_and_its_json_is_strict():
    one = statistics.mean([3.0])
    assert (one.low, one.high) == (-math.inf, math.inf)
    assert one.to_json() == {"value": 3.0, "low": None, "high": None, "n": 1}
    assert str(one) == "3.00 [spread unknown]"
    with pytest.raises(ValueError, match="not a finite number"):
        statistics.mean([1.0, math.nan])
    with pytest.raises(ValueError, match="not empty"):
        statistics.mean([])


def test_the_gap_of_two_shares_is_newcombes():
    """Newcombe 1998, table II, case (a): 56/70 − 48/80, method 10: 0.0524 to 0.3339."""
    gap = statistics.apart(
        Estimate(0.8, *statistics.wilson(56, 70), 70),
        Estimate(0.6, *statistics.wilson(48, 80), 80),
    )
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def scored(*rows: list[float], ref: list[list[float]] | None = None) -> Scored:
    steps = max(map(len, rows))
    fill = lambda rows: torch.tensor([r + [float("-inf")] * (steps - len(r)) for r in rows])  # noqa: E731
    return Scored(fill(list(rows)), masks([len(r) for r in rows]), None if ref is None else fill(ref))


def test_pair_evidence_holds_the_objectives_rewards_whole_log_probs_and_lengths():
    w = scored([-1.0, -2.0], [-3.0], [], ref=[[-1.5, -2.5], [-3.0], []])
    l = scored([-4.0], [-1.0, -1.0, -1.0], [], ref=[[-3.0], [-1.0, -1.0, -1.0], []])
    found = pairs.pair_evidence(DPO(beta=0.5), [Pairs(w, l)], [7, 9], groups=[0, 1])
    assert found == PairEvidence(
        [7, 9], [0.5, 0.0], [-0.5, 0.0], [-3.0, -3.0], [-4.0, -3.0], [2, 1], [1, 3], [-4.0, -3.0], [-3.0, -3.0], [0, 1]
    )
    assert pairs.margins(found) == [1.0, 0.0]
    assert pairs.accuracy(found).value == 0.75, "the second pair is a tie and counts half"
    assert ranking_accuracy(found).value == 1.0, "a tie of plain log-probs counts as right"
    assert ranking_accuracy(found, per_token=True).value == 0.5
    longer = pairs.lengths(found)
    assert longer.value == -0.5, "2 and 1 tokens chosen, 1 and 3 rejected"
    before = replace(found, logp_chosen=[-4.0, -3.0], logp_rejected=[-3.0, -3.0])
    moved = pairs.displacement(before, found)
    assert (moved.chosen.value, moved.rejected.value) == pytest.approx((1 / 3, -1 / 4))
    assert pairs.movement(before, found) == 0.5
    with pytest.raises(ValueError, match="not the same rows"):
        pairs.gains(replace(before, numbers=[7, 8]), found)
    with pytest.raises(ValueError, match="2 scored pairs but 3 row numbers"):
        pairs.pair_evidence(DPO(), [Pairs(w, l)], [1, 2, 3])


def test_before_training_every_margin_is_zero_and_accuracy_is_fifty_percent():
    logp = torch.randn(40, 6) - 3
    y, mask = logp + 2e-7, torch.ones(40, 6, dtype=torch.bool)  # a reference read from another batch shape
    begin = pairs.pair_evidence(DPO(), [Pairs(Scored(y, mask, logp), Scored(logp, mask, logp))], list(range(40)))
    assert any(begin.reward_chosen)
    found = pairs.accuracy(begin)
    assert found.value == 0.5 and found.low < 0.4 < 0.6 < found.high
    assert pairs.margin(begin).value == 0.0


def test_a_reward_without_reference_is_no_tie_where_the_policy_is_the_start():
    logp, mask = torch.full((2, 3), -1.0), torch.ones(2, 3, dtype=torch.bool)
    batch = Pairs(Scored(logp, mask, logp), Scored(logp * 2, mask, logp * 2))
    assert pairs.margins(pairs.pair_evidence(SimPO(beta=2.0), [batch], [1, 2])) == [2.0, 2.0]
    assert pairs.margins(pairs.pair_evidence(DPO(), [batch], [1, 2])) == [0.0, 0.0]


def test_sample_evidence_holds_kl_scores_and_lengths_by_prompt():
    own = scored([-1.0, -2.0, -0.5], [-1.0], [-2.0, -2.0])
    ref = scored([-1.2, -1.5, -0.9], [-1.0], [-2.0, -2.0])
    encoded = Encoded(
        Rollouts,
        (torch.tensor([1]), torch.tensor([2])),
        ((torch.tensor([1, 2, 3]), torch.tensor([1])), (torch.tensor([4, 5]),)),
        (1, 2),
    )
    sampled = Samples(encoded, (("a b c", ""), ("d e",)), ((True, False), (True,)), own)
    judged = Judgement(torch.tensor([[0.5], [9.0], [-1.0]]), torch.tensor([True, False, True]))
    found = samples.sample_evidence(sampled, ref, judged, ["p", "q"], "toy")
    assert found.lengths == [[3, 1], [2]]
    assert found.scores == [[0.5, None], [-1.0]] and found.judge == "toy"
    assert found.kl is not None and found.kl[0] == pytest.approx([0.237772, 0.0], abs=1e-6)
    assert found.ref is not None and found.logp[0][0] - found.ref[0][0] == pytest.approx(0.1, abs=1e-6)
    kl = samples.kl(found)
    assert kl is not None and kl.value == pytest.approx(0.237772 / 4, abs=1e-6)
    assert samples.score_by_prompt(found) == [0.5, -1.0]
    assert samples.judged(found) == pytest.approx(2 / 3)
    assert samples.entropy(found).value == pytest.approx(8.5 / 6)
    with pytest.raises(StoppedRun, match="prompt 1 is not a finite number"):
        samples.sample_evidence(sampled, scored([-math.inf] * 3, [-1.0], [-2.0, -2.0]), None, ["p", "q"], None)


def test_distinct_n_and_repetition_give_the_worked_numbers():
    assert ngrams.distinct(["a b c a b", "a b d"], 1) == 0.5
    assert ngrams.distinct(["a b c a b", "a b d"], 2) == pytest.approx(0.666667, abs=1e-6)
    assert ngrams.distinct(["a"], 2) == 0.0
    assert ngrams.repetition("I am glad I am glad I am glad") == pytest.approx(4 / 7)
    assert ngrams.repetition("every word is new here") == 0.0
    assert samples.words("Don't 今日は, GOOD") == ["don", "'", "t", "今", "日", "は", ",", "good"]


def texts(rows: list[list[str]]) -> SampleEvidence:
    count = [[len(t.split()) for t in row] for row in rows]
    logp = [[-2.0 * n for n in row] for row in count]
    return SampleEvidence([f"p{i}" for i in range(len(rows))], rows, count, [[True] * len(r) for r in rows], logp)


def test_more_of_the_same_text_does_not_look_less_diverse_at_equal_length():
    generator = np.random.default_rng(0)
    write = lambda n: " ".join(f"w{i}" for i in generator.zipf(1.3, n) % 500)  # noqa: E731
    brief = texts([[write(15)] for _ in range(60)])
    long = texts([[write(60)] for _ in range(60)])
    pooled = [ngrams.distinct([t for row in e.texts for t in row], 2) for e in (brief, long)]
    assert pooled[1] < 0.9 * pooled[0], "plain distinct-2 falls with length alone"
    found = samples.diversity(brief, long)
    assert found is not None and found[2].low < 0 < found[2].high
    assert samples.diversity(texts([["a b"]]), texts([["a b"]])) is None


def test_numbers_below_nought_carry_a_true_minus_sign():
    found = statistics.Estimate(-0.35, -0.5, 0.2, 9)
    assert found.number(signed=True) == "−0.35 [−0.50, +0.20]"
    assert found.percent() == "−35.0 % [−50.0, 20.0]" and statistics.short(-1234.0) == "−1,234"

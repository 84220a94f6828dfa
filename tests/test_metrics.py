"""Calibration, diversity, agreement, frontiers, RewardBench and significance against hand numbers and other libraries."""

from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest
import sacrebleu
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, cohen_kappa_score, log_loss
from statsmodels.stats.multitest import multipletests

from penchant.errors import Refusal
from penchant.evaluation import agreement, diversity, frontier, rewardbench
from penchant.evaluation.calibration import calibration, of_margins, temperature
from penchant.evaluation.significance import Result, Table, cliffs_delta, cohen_dz, family, holm, mcnemar_of, wilcoxon
from penchant.evaluation.statistics import Estimate, mcnemar
from penchant.rewards.ngrams import distinct

STATED = (0.95, 0.9, 0.8, 0.75, 0.65, 0.6, 0.55, 0.52)
RIGHT = (1.0, 1, 1, 0, 1, 0, 1, 0)


def test_calibration_has_the_worked_numbers():
    found = calibration(STATED, RIGHT, bins=5)
    assert found.ece == pytest.approx(0.215, abs=1e-9)
    assert (found.brier.value, found.nll.value) == pytest.approx((0.1963, 0.555621), abs=5e-5)
    assert found.accuracy.value == 0.625
    assert found.brier.value == pytest.approx(brier_score_loss(RIGHT, STATED), abs=1e-12)
    assert found.nll.value == pytest.approx(log_loss(RIGHT, STATED), abs=1e-12)
    assert [(b.low, b.high, b.right.n) for b in found.curve] == [
        (0.5, 0.6, 3), (0.6, 0.7, 1), (0.7, 0.8, 2), (0.8, 0.9, 1), (0.9, 1.0, 1)
    ]  # fmt: skip
    assert all(b.right.low <= b.right.value <= b.right.high for b in found.curve)


def test_calibration_of_margins_takes_the_likelier_side():
    d = np.log(np.array(STATED) / (1 - np.array(STATED))) * np.where(np.array(RIGHT) > 0, 1, -1)
    assert of_margins(d.tolist(), bins=5).ece == pytest.approx(0.215, abs=1e-9)
    assert of_margins([0.0, 0.0]).accuracy.value == 0.5 and of_margins([0.0, 0.0]).ece == 0
    assert of_margins((3 * d).tolist(), temperature=3, bins=5).nll.value == pytest.approx(0.555621, abs=1e-6)
    assert math.isinf(calibration([1.0, 1.0], [1.0, 0.0]).nll.value)


def test_temperature_is_the_unpenalised_fit_and_brings_overconfidence_back():
    generator = np.random.default_rng(0)
    truth = generator.normal(0, 1.5, 900)
    d = 3 * np.where(generator.random(900) < 1 / (1 + np.exp(-truth)), truth, -truth)  # three times too sure
    found = temperature(d.tolist(), resamples=200)
    assert found.low < 3 < found.high and found.value == pytest.approx(3, rel=0.2)
    x, y = np.concatenate([d, -d])[:, None], np.repeat([1, 0], 900)
    other = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(x, y)
    assert found.value == pytest.approx(1 / other.coef_[0, 0], rel=1e-5)
    assert of_margins(d.tolist(), found.value).ece < of_margins(d.tolist()).ece / 3


def test_temperature_at_the_ends():
    assert math.isinf(temperature([-1.0, -2.0, 1.0]).value)
    with pytest.raises(Refusal, match="are in order"):
        temperature([1.0, 2.0])
    with pytest.raises(Refusal, match="finite"):
        temperature([1.0, math.nan])


def test_distinct_and_its_correction():
    texts = [list("abcab"), list("abd")]
    assert (diversity.distinct_tokens(texts, 1), diversity.distinct_tokens(texts, 2)) == pytest.approx((0.5, 2 / 3))
    assert distinct(["a b c a b", "a b d"], 2) == pytest.approx(2 / 3)
    v, c = 100, 8
    assert diversity.expectation_adjusted_distinct(texts, v) == pytest.approx(4 / (v * (1 - ((v - 1) / v) ** c)))
    generator = np.random.default_rng(0)
    for amount in (100, 1000):  # what is drawn evenly has 1, whatever the amount
        text = [str(x) for x in generator.integers(200, size=amount)]
        assert diversity.expectation_adjusted_distinct([text], 200) == pytest.approx(1, abs=0.05)


def test_self_bleu_is_worked_and_is_another_librarys():
    texts = ["a b c d", "a b c e", "a b f g"]
    assert diversity.self_bleu_of_texts(texts, 2) == pytest.approx(0.607487, abs=1e-6)
    generator = np.random.default_rng(2)
    some = [" ".join(generator.choice(list("abcdef"), int(n))) for n in (5, 9, 12, 12, 7)]
    for n in (1, 2, 3, 4):
        bleu = sacrebleu.BLEU(max_ngram_order=n, smooth_method="none", tokenize="none", force=True)
        other = [bleu.corpus_score([t], [[u] for j, u in enumerate(some) if j != i]).score for i, t in enumerate(some)]
        assert diversity.self_bleu([t.split() for t in some], n) == pytest.approx(np.mean(other) / 100, abs=1e-9)
    with pytest.raises(Refusal, match="there is 1"):
        diversity.self_bleu([["a"]])


def test_entropy_and_vendi():
    assert diversity.token_entropy([0.5, 0.25, 0.25]) == pytest.approx(1.039721, abs=1e-6)
    assert diversity.token_entropy([1.0, 0.0]) == 0
    assert diversity.vendi(np.ones((4, 4))) == pytest.approx(1) and diversity.vendi(np.eye(4)) == pytest.approx(4)
    two = np.kron(np.eye(2), np.ones((2, 2)))
    assert diversity.vendi(two) == pytest.approx(2)
    with pytest.raises(Refusal, match="symmetric"):
        diversity.vendi(np.array([[1.0, 0.2], [0.3, 1.0]]))
    with pytest.raises(Refusal, match="no distribution"):
        diversity.token_entropy([0.5, 0.6])


def test_agreement_is_that_of_the_libraries_and_of_hand(monkeypatch):
    monkeypatch.setattr(agreement, "RESAMPLES", 200)
    a, b = [1, 1, 0, 0, 1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 1, 1, 1, 1, 0, 1]
    assert agreement.raw(a, b).value == 0.8
    kappa = agreement.cohen_kappa(a, b)
    chance = 0.6 * 0.6 + 0.4 * 0.4
    assert kappa.value == pytest.approx((0.8 - chance) / (1 - chance)) == pytest.approx(cohen_kappa_score(a, b))
    assert kappa.low < kappa.value < kappa.high
    table = [[1, 2, 3, 3, 2, 1, 4, 1, 2, None], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5], [None, 3, 3, 3, 2, 3, 4, 2, 2, 5]]
    alone = [[*row, x] for row, x in zip(table, (None, None, 7), strict=True)]  # an item of one rating says nothing
    for level in ("nominal", "ordinal", "interval"):
        known = np.array([[np.nan if x is None else x for x in row] for row in table], dtype=float)
        wanted = krippendorff.alpha(reliability_data=known, level_of_measurement=level)
        assert agreement.krippendorff_alpha(alone, level).value == pytest.approx(wanted)
    # Hand: 4 of 5 units agree, 10 values (six 1, four 0): 1 − 9 · 2 / (2 · 6 · 4)
    assert agreement.krippendorff_alpha([[1, 1, 0, 0, 1], [1, 1, 0, 0, 0]]).value == pytest.approx(1 - 9 / 25)


def test_order_agreement_with_ties(monkeypatch):
    monkeypatch.setattr(agreement, "RESAMPLES", 200)
    x, y = [1.0, 2, 3, 4, 5, 5], [1.0, 3, 2, 4, 4, 6]
    tau, p = agreement.kendall(x, y)
    assert (tau.value, p) == pytest.approx(tuple(stats.kendalltau(x, y)))
    assert agreement.goodman_kruskal_gamma(x, y) == pytest.approx((12 - 1) / 13)
    assert agreement.spearman(x, y)[0].value == pytest.approx(stats.spearmanr(x, y).statistic)
    for refused in (lambda: agreement.kendall([1.0, 1.0], [1.0, 2.0]), lambda: agreement.spearman([1.0], [2.0])):
        with pytest.raises(Refusal, match="same value"):
            refused()
    with pytest.raises(Refusal, match="0 / 0"):
        agreement.cohen_kappa([1, 1], [1, 1])


def test_kl_estimates_of_a_sample():
    p, r = (-1.0, -2, -0.5), (-1.2, -1.5, -0.9)
    assert (frontier.k1(p, r), frontier.k2(p, r), frontier.k3(p, r)) == pytest.approx((0.1, 0.225, 0.237772), abs=1e-6)
    assert frontier.k3(p, p) == 0


def test_best_of_n_costs_what_is_known():
    assert [frontier.best_of_kl(n) for n in (1, 2, 4, 16)] == pytest.approx([0, 0.193147, 0.636294, 1.835089], abs=1e-6)
    assert frontier.best_of((1, 0, 0.6), (0.4, 0.4, 0.2), 4) == pytest.approx((0.9328, 0.538346), abs=1e-6)
    even = np.full(2000, 1 / 2000)
    assert frontier.best_of(np.arange(2000.0).tolist(), even.tolist(), 4)[1] == pytest.approx(
        frontier.best_of_kl(4), abs=2e-3
    )


def test_no_best_of_n_lies_above_the_closed_form_frontier():
    r, p = (1, 0, 0.6), (0.4, 0.4, 0.2)
    curve = {b: frontier.tilted(r, p, b) for b in (1, 0.5, 0.2)}
    assert curve[1] == pytest.approx((0.705266, 0.089142), abs=1e-6)
    assert curve[0.5] == pytest.approx((0.834411, 0.277628), abs=1e-6)
    assert curve[0.2] == pytest.approx((0.968536, 0.687204), abs=1e-6)
    betas = np.geomspace(0.05, 50, 4000)
    gains, costs = np.array([frontier.tilted(r, p, float(b)) for b in betas]).T
    for n in range(2, 12):
        gain, cost = frontier.best_of(r, p, n)
        assert gain <= np.interp(cost, costs[::-1], gains[::-1]) + 1e-6


def test_frontier_points_and_reward_at_matched_kl():
    at = lambda name, kl, r: frontier.Point(name, Estimate(kl, kl, kl, 9), Estimate(r, r, r, 9))  # noqa: E731
    points = [at("a", 0, 0), at("b", 2, 1), at("c", 1, 1), at("d", 3, 0.5), at("e", 4, 2)]
    assert [x.name for x in frontier.frontier(points)] == ["a", "c", "e"]
    assert frontier.reward_at([points[0], points[1]], 0.5) == pytest.approx(0.25)
    with pytest.raises(Refusal, match="lies outside"):
        frontier.reward_at(points, 5)
    generator = np.random.default_rng(0)
    kl = [np.full(200, k) for k in (0.0, 2.0)]
    noise = generator.normal(0, 1, 200)
    a, b = [(k, noise + 0.5 * k) for k in kl], [(k, noise + 0.2 * k + generator.normal(0, 0.1, 200)) for k in kl]
    found = frontier.matched(a, b, 1.0)
    assert found.value == pytest.approx(0.3, abs=0.03) and found.low > 0.25 and found.p < 0.01


def test_over_optimisation_fits_give_back_their_own_curve():
    kl = np.linspace(0.5, 30, 20)
    d = np.sqrt(kl)
    best = frontier.over_optimisation(kl.tolist(), (d * (1.2 - 0.2 * d)).tolist())
    assert (best.a, best.b, best.peak) == pytest.approx((1.2, 0.2, 9.0)) and best.reward(9.0) == pytest.approx(1.8)
    learned = frontier.over_optimisation(kl.tolist(), (d * (1.2 - 0.6 * np.log(d))).tolist(), "learning")
    assert (learned.a, learned.b) == pytest.approx((1.2, 0.6)) and learned.peak == pytest.approx(math.e**2)
    assert frontier.over_optimisation([1.0, 4], [1.0, 4]).peak is None


def test_rewardbench_sections_weigh_by_fixed_counts():
    names = ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med")
    found = rewardbench.section_scores(dict(zip(names, (0.95, 0.9, 0.85, 1, 0.9), strict=True)))
    assert found.sections == {"Chat": pytest.approx(0.908520, abs=1e-6)} and found.total is None
    everything = {n: 0.5 for s in rewardbench.SECTIONS.values() for n in s}
    assert rewardbench.section_scores(everything).total == 0.5
    assert rewardbench.section_scores(everything | {"math-prm": 1.0}).sections["Reasoning"] == pytest.approx(0.75)
    assert rewardbench.pair_accuracy([1.0, 2.0, math.nan], [1.0, 1.0, 0.0]) == pytest.approx(1 / 3)
    with pytest.raises(Refusal, match="did you mean 'math-prm'"):
        rewardbench.section_scores({"math-prn": 1.0})


def test_rewardbench_two_scores_ties_and_bests():
    assert rewardbench.best_of_four([[3, 1, 1, 1], [2, 2, 0, 0], [0, 1, 0, 0], [5, 4, 3, 2]]) == 0.5
    one = rewardbench.TiedPrompt((3.0, 2.5), (1.0, 0.0), 3.0, (2.0,))  # spread .5, gap 1.5, reference gap 1
    two = rewardbench.TiedPrompt((3.0, 1.0), (0.0,), 1.0, (2.0,))  # spread 2, gap 1, reference gap −1
    same = rewardbench.TiedPrompt((1.0, 1.0), (1.0,), 1.0, (1.0,))  # 0 / 0
    assert rewardbench.ties_score([one]) == pytest.approx(1 + 0.01 * math.tanh(1))
    assert rewardbench.ties_score([two]) == pytest.approx(0.3 + 0.01 * math.tanh(-1.5))
    assert rewardbench.ties_score([same]) == 0


def test_holm_is_another_librarys():
    p = np.random.default_rng(0).random(12) ** 3
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist(), abs=1e-12)
    assert holm([]) == [] and holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_tests_on_pairs_and_effect_sizes():
    assert mcnemar(15, 5) == pytest.approx(0.041389, abs=1e-6)
    assert mcnemar_of([1, 1, 0, 0], [1, 0, 1, 1])[:2] == (1, 2)
    assert stats.binomtest(60, 100).pvalue == pytest.approx(mcnemar(60, 40)) == pytest.approx(0.056888, abs=1e-6)
    d = [0.5, -0.2, 0.9, 1.1, 0.3, 0.7]
    assert wilcoxon(d) == pytest.approx(2 / 64 * 2) and wilcoxon([0.0, 0.0]) == 1
    assert cohen_dz(d) == pytest.approx(np.mean(d) / np.std(d, ddof=1)) and math.isnan(cohen_dz([1.0]))
    assert cliffs_delta([1, 2, 3], [2, 2]) == pytest.approx(0) and cliffs_delta([3], [1, 2]) == 1


def test_a_family_is_corrected_as_a_whole_and_says_so():
    generator = np.random.default_rng(0)
    base = generator.normal(0, 1, 60)
    found = family(
        base.tolist(), {f"arm {k}": (base + generator.normal(g, 1, 60)).tolist() for k, g in enumerate((0.0, 1.0))}
    )
    null, real = found.rows
    assert real.sure and not null.sure and real.estimate.n == 60
    assert null.p is not None and real.p is not None and real.p_holm == pytest.approx(min(1, 2 * real.p))
    table = Table.of([*found.rows, Result("only shown", Estimate(0.5, -math.inf, math.inf, 1), percent=True)])
    assert table.rows[2].sure is None and "spread unknown" in table.lines()[3] and table.to_json()[2]["low"] is None


def test_the_area_of_a_frontier_is_that_of_its_steps():
    steps = [(1.0, 2.0), (2.0, 3.0), (1.5, 1.0), (5.0, 9.0), (0.5, -1.0)]  # the third is beaten, the last two outside
    assert frontier.hypervolume(steps, (4.0, 0.0)) == 3 * 2 + 2 * 1
    assert frontier.hypervolume([], (4.0, 0.0)) == frontier.hypervolume([(4.0, 1.0), (1.0, 0.0)], (4.0, 0.0)) == 0
    generator = np.random.default_rng(0)
    some = generator.random((12, 2))
    x, y = generator.random((2, 200_000))
    beaten = ((some[:, :1] <= x) & (some[:, 1:] >= y)).any(0).mean()
    assert frontier.hypervolume([tuple(one) for one in some.tolist()], (1.0, 0.0)) == pytest.approx(beaten, abs=0.005)
    with pytest.raises(Refusal, match="finite"):
        frontier.hypervolume([(math.nan, 1.0)], (1.0, 0.0))

"""Claims on finite sets of responses, whose rewards and optima are exact: each recipe runs whole, in seconds to minutes. What
did not hold is asserted as it came out, so that a change of it is noticed."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.claims, pytest.mark.filterwarnings("default")]


def test_consensus_and_the_known_correction_beat_dpo_on_turned_labels(recipe: Any) -> None:
    found = recipe("noisy_labels").noisy_labels()
    print(found)
    dpo, cdpo, rdpo, consensus = found.runs
    assert found.difference(consensus, "reward / best").low > 0
    assert found.difference(rdpo, "reward / best").low > 0
    assert found.difference(cdpo, "reward / best").high < 0  # smoothing is no correction
    assert dpo == found.baseline


def test_reliabilities_are_found_beside_a_careful_annotator(recipe: Any) -> None:
    found = recipe("noisy_labels").reliabilities()
    print(found)
    beside = [arm for arm in found.runs if arm.startswith("beside")]
    assert len(beside) == 4
    assert all(found.estimate(arm, "largest error").value < 0.05 for arm in beside)


@pytest.mark.parametrize(("policy", "features"), [("able", 10), ("limited", 4)])
def test_whole_lists_beat_one_pair_of_each_and_lambda_gains_nothing(recipe: Any, policy: str, features: int) -> None:
    found = recipe("lipo").lipo(8, features)
    print(policy, found, sep="\n")
    assert found.difference("one pair", "won").high < 0
    assert found.difference("LiPO", "won").low < 0.005  # a null: no gain over all pairs alike


def test_longer_rankings_do_not_help_pro_here_and_imitation_keeps_pairs_in_place(recipe: Any) -> None:
    found = recipe("pro").pro()
    print(found)
    assert found.difference("PRO, n = 5", "worth", "PRO, n = 2").high < 0  # the reverse of the claim
    assert found.difference("PRO, n = 2", "best", "no imitation, n = 2").low > 0


def test_copg_reaches_the_optimum_where_wrong_baselines_do_not(recipe: Any) -> None:
    found = recipe("copg").bandit()
    print(found)
    regret = lambda arm: found.estimate(arm, "regret")  # noqa: E731
    assert regret("CoPG").value < 0.01
    assert regret("policy gradient, no baseline").low > regret("before").value
    assert regret("IPO").low > regret("CoPG").high


def test_own_pairs_end_at_the_nash_policy_and_a_fixed_set_elsewhere(recipe: Any) -> None:
    found = recipe("nash").rest()
    print(found)
    fixed, own, *_ = found.runs
    figure = found.figures[0]
    assert found.estimate(own, figure).value < 1e-4
    assert found.estimate(fixed, figure).low > 0.01


def test_past_policies_steady_long_mirror_steps_and_optimism_ends_the_circling(recipe: Any) -> None:
    module = recipe("nash")
    anchored, plain = module.regularised(), module.plain()
    print(anchored, plain, sep="\n")
    assert anchored.difference("MNPO, 2 past", "gap, τ = 0.07").high < 0
    assert plain.estimate("ONPO", "gap").high < plain.estimate("start", "gap").low


def test_trpa_is_not_told_apart_from_online_dpo(recipe: Any) -> None:
    found = recipe("trpa").compared()
    print(found)
    gain = found.difference("TRPA", "answers right")
    assert gain.low < 0 < gain.high  # a null


def test_own_samples_pay_and_the_push_pays_where_a_policy_carries_over(recipe: Any) -> None:
    module = recipe("onpolicy_suboptimal")
    some = ("Best-of-N", "DPO")
    far = {name: module.compared(kind, kind.far, some) for name, kind in module.KINDS.items()}
    near = module.compared(module.KINDS["table"], "R5", some)
    print(*far.values(), near, sep="\n")
    assert all(found.estimate(arm, "gain").low > 0 for found in far.values() for arm in some)
    assert all(far["table"].estimate(arm, "gain").low > near.estimate(arm, "gain").high for arm in some)
    assert far["tanh-Gaussian"].difference("DPO", "offline").low > 0
    assert far["tokens"].difference("DPO", "offline").low > 0
    assert far["table"].difference("DPO", "offline").high < 0  # the reverse, with a free logit for each action


@pytest.mark.parametrize("kind", ["table", "network"])
def test_online_ipo_beats_offline_ipo_with_one_trainer(recipe: Any, kind: str) -> None:
    module = recipe("online_offline_gap")
    some = ("offline", "online", "replayed, shuffled 0", "replayed, shuffled 1", "pairs of the final policy")
    found = module.gap(kind, some=some)
    print(found)
    assert found.difference("online", "wins, peak").low > 0
    assert found.values("replayed, shuffled 0", "wins, end") == found.values("online", "wins, end")
    assert found.estimate("pairs of the final policy", "wins, peak").value < found.estimate("online", "wins, peak").value


def test_length_alone_wins_the_plain_rate_and_not_the_length_controlled_one(recipe: Any) -> None:
    found = recipe("length_controlled").wins()
    print(found)
    assert found.estimate("longer", "win rate").low > 50
    for form in ("length-controlled", "published"):
        held = found.estimate("longer", form)
        assert held.low < 50 < held.high and found.estimate("better", form).low > 50
    assert found.estimate("better", "win rate").low > 50 and found.estimate("both", "length-controlled").low > 50


def test_the_best_of_n_by_a_proxy_turns_under_heavy_noise_only(recipe: Any) -> None:
    found = recipe("length_controlled").best_of_n()
    print(found)
    assert found.estimate("heavy", "fall from the peak").low > 0.5 and found.estimate("heavy", "fitted b").low > 0
    assert found.estimate("light", "fitted b").high < 0  # a null for this half: normal noise never turns the gold reward
    assert max(found.values("light", "fall from the peak")) == 0

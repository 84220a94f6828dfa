"""Finite processes are solved exactly, and people who compare by regret are told from those who compare by what was earned. Nothing
here is large; what a reward learned from either is good for, the recipe says."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from penchant.control.annotators import regret_teacher, return_teacher
from penchant.control.regret import (
    ChangeInReturn,
    Comparisons,
    Exact,
    PartialReturn,
    Segments,
    SegmentScore,
    SummedAdvantage,
    candidates,
    learn,
    loss_of,
    segments_of,
)
from penchant.control.tables import of_environment, of_table
from penchant.control.tabular import (
    FiniteMDP,
    greedy,
    optimal,
    scaled_return,
    successor_features,
    uniform,
    values_of,
)
from penchant.errors import Refusal
from penchant.feedback.trajectories import Trajectory
from penchant.rewards.segments import change_in_return, mixed_value, partial_return

ONE = torch.ones(1, dtype=torch.float64)
LEFT, RIGHT = 0, 1


def chain(gamma: float, more: float = 0.0) -> FiniteMDP:
    """States 0-1-2-3, the last terminal; a step earns −1, the one that enters the end 10, and each `more`. Left of 0 is 0."""
    reach, told = torch.zeros(4, 2, 4), torch.zeros(4, 2, 1)
    for s in range(3):
        reach[s, LEFT, max(s - 1, 0)] = reach[s, RIGHT, s + 1] = 1
        told[s] = -1 + more
    told[2, RIGHT] = 10 + more
    return FiniteMDP(reach, told, torch.tensor([False, False, False, True]), gamma)


def walks(*paths: tuple[int, ...]) -> Segments:
    """Segments of the chain by the states they pass."""
    states = torch.tensor(paths)
    return Segments(states, (states[:, 1:] > states[:, :-1]).long(), torch.ones(len(states), states.shape[1] - 1).bool())


def drawn(
    seed: int, states: int = 7, actions: int = 3, features: int = 4, gamma: float = 0.9, sure: bool = False
) -> FiniteMDP:
    """A process drawn at random, its last state terminal."""
    generator = torch.Generator().manual_seed(seed)
    reach = torch.rand(states, actions, states, generator=generator, dtype=torch.float64) ** 3
    if sure:
        reach = torch.nn.functional.one_hot(reach.argmax(-1), states).double()
    told = torch.randn(states, actions, features, generator=generator, dtype=torch.float64)
    return FiniteMDP(reach / reach.sum(-1, keepdim=True), told, torch.arange(states) == states - 1, gamma)


def wandered(mdp: FiniteMDP, count: int, steps: int, seed: int) -> Segments:
    """Segments under actions drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    states, actions, _ = mdp.sizes
    here, path, did = torch.randint(states - 1, (count,), generator=generator), [], []
    for _ in range(steps):
        a = torch.randint(actions, (count,), generator=generator)
        path.append(here)
        did.append(a)
        here = torch.multinomial(mdp.transitions[here, a], 1, generator=generator)[:, 0]
    return Segments(torch.stack([*path, here], 1), torch.stack(did, 1), torch.ones(count, steps).bool())


def numbers(seed: int, count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(x: Tensor, y: Any, within: float = 1e-10) -> None:
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=torch.float64), atol=within, rtol=within)


def by_iteration(mdp: FiniteMDP, weights: Tensor, sweeps: int = 5000) -> Tensor:
    """V* by value iteration, written plainly."""
    reach, earned, values = mdp.transitions.tolist(), mdp.rewards(weights).tolist(), [0.0] * mdp.sizes[0]
    for _ in range(sweeps):
        values = [
            0.0
            if mdp.terminal[s]
            else max(
                r + mdp.gamma * math.fsum(p * v for p, v in zip(row, values, strict=True))
                for r, row in zip(earned[s], reach[s], strict=True)
            )
            for s in range(mdp.sizes[0])
        ]
    return torch.tensor(values, dtype=torch.float64)


def test_a_constant_added_to_every_step_turns_the_best_behaviour_round():
    plain, shifted = optimal(chain(0.9), ONE), optimal(chain(0.9, 3.0), ONE)
    close(plain.values, [6.2, 8.0, 10.0, 0.0])
    close(shifted.values, [20.0, 20.0, 20.0, 0.0])
    assert plain.policy[:3].tolist() == [[0, 1]] * 3
    assert shifted.policy[:3].tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0]]  # anything but the end


def test_partial_return_and_regret_of_three_segments_of_the_chain():
    mdp = chain(1.0)
    a, b, c = walks((0, 1, 2)), walks((2, 1, 2)), walks((1, 2, 3))
    close(optimal(mdp, ONE).values, [8.0, 9.0, 10.0, 0.0])
    earned, change = PartialReturn(mdp), ChangeInReturn(mdp, Exact(mdp))
    for segment, partial, regret in ((a, -2.0, 0.0), (b, -2.0, 2.0), (c, 9.0, 0.0)):
        close(earned(ONE, segment), [partial])
        close(-change(ONE, segment), [regret])
    likely = lambda score, x, y: float(torch.sigmoid(score(ONE, x) - score(ONE, y)))  # noqa: E731
    assert likely(earned, a, b) == 0.5 and likely(change, a, b) == pytest.approx(0.880797, abs=1e-6)
    assert likely(earned, c, a) == pytest.approx(0.999983, abs=1e-6) and likely(change, c, a) == 0.5


def test_a_constant_added_to_every_step_changes_labels_by_regret_and_none_by_partial_return():
    a, b = walks((1, 2, 3)), walks((1, 2, 1))
    scores = {more: (PartialReturn(mdp := chain(0.9, more)), SummedAdvantage(Exact(mdp))) for more in (0.0, 3.0)}
    gap = {more: [float(each(ONE, a) - each(ONE, b)) for each in both] for more, both in scores.items()}
    assert gap[0.0] == pytest.approx([11.0, 3.8]) and gap[3.0] == pytest.approx([11.0, -7.0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.999])
def test_optimal_values_are_those_of_value_iteration_and_solve_bellmans_equation(gamma: float):
    mdp, weights = drawn(1, gamma=gamma), numbers(2, 4)
    found = optimal(mdp, weights)
    if gamma < 0.99:
        close(found.values, by_iteration(mdp, weights, 1000))
    close(found.actions.amax(-1), found.values)
    close(found.values[-1:], [0.0])
    assert bool((found.advantages <= 1e-10).all())
    psi, of_actions = successor_features(mdp, found.policy)
    close(psi @ weights, found.values, 1e-9)
    close(of_actions @ weights, found.actions, 1e-9)
    begun = optimal(mdp, weights, uniform(mdp))
    close(begun.values, found.values)


def test_without_discount_values_are_found_where_they_are_and_refused_where_they_grow():
    certain = chain(1.0)
    close(optimal(certain, ONE).values, by_iteration(certain, ONE, 100))
    close(values_of(certain, uniform(certain), ONE)[0], [-1.0, 1.0, 5.0, 0.0])  # v0 = v1 − 2, v2 = 4.5 + v1 / 2
    slippery = drawn(3, gamma=1.0)
    losses = -torch.ones(1, dtype=torch.float64)
    slippery = slippery.told(torch.rand(7, 3, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.1)
    close(optimal(slippery, losses).values, by_iteration(slippery, losses, 3000), 1e-9)
    with pytest.raises(Refusal, match="earns or loses without end"):
        optimal(chain(1.0, 3.0), ONE)
    with pytest.raises(Refusal, match="goes on for ever"):
        successor_features(certain, torch.tensor([[1.0, 0.0]] * 4, dtype=torch.float64))
    close(optimal(chain(1.0, 1.0).told(torch.zeros(4, 2, 1)), ONE).values, [0.0] * 4)  # going round for nothing is as good


def test_successor_features_are_the_discounted_sums_of_what_is_met():
    mdp = drawn(5, gamma=0.6)
    psi, of_actions = successor_features(mdp, uniform(mdp))
    step, met = (
        torch.einsum("ij,ijk->ik", uniform(mdp), mdp.transitions),
        torch.einsum("ij,ijf->if", uniform(mdp), mdp.expected),
    )
    total, reach = torch.zeros_like(met), torch.eye(7, dtype=torch.float64)
    for t in range(100):
        total, reach = total + 0.6**t * reach @ met, reach @ step
    close(psi, total)
    close(torch.einsum("ij,ijf->if", uniform(mdp), of_actions), psi)


def test_the_best_policy_has_scaled_return_one_and_chance_none():
    mdp, weights = drawn(6), numbers(7, 4)
    assert scaled_return(mdp, optimal(mdp, weights).policy, weights) == pytest.approx(1, abs=1e-12)
    assert scaled_return(mdp, uniform(mdp), weights) == 0
    assert scaled_return(mdp, optimal(mdp, -weights).policy, weights) < 0
    with pytest.raises(Refusal, match="equally good"):
        scaled_return(mdp, uniform(mdp), torch.zeros(4))


def test_ties_are_shared_and_rounding_makes_none():
    assert (
        greedy(torch.tensor([[1.0, 1.0, 0.0], [1e6, 1e6 + 1e-6, 0.0]], dtype=torch.float64)).tolist() == [[0.5, 0.5, 0]] * 2
    )


@pytest.mark.parametrize("sure", [True, False])
def test_regret_is_never_negative_and_is_none_along_the_best_way(sure: bool):
    mdp, weights = drawn(8, sure=sure), numbers(9, 4)
    regret = -SummedAdvantage(Exact(mdp))(weights, wandered(mdp, 200, 5, 10))
    assert bool((regret >= -1e-10).all()) and float(regret.max()) > 1
    best = optimal(mdp, weights).actions.argmax(-1)
    start = torch.arange(6)
    first = Segments(torch.stack([start, start], 1), best[:6, None], torch.ones(6, 1).bool())
    close(SummedAdvantage(Exact(mdp))(weights, first), [0.0] * 6)


def shaped(mdp: FiniteMDP, weights: Tensor, worth: Tensor) -> FiniteMDP:
    """r + γ F(s') − F(s), F 0 at the end, as one feature of moves."""
    worth = torch.where(mdp.terminal, 0.0, worth)
    more = mdp.gamma * worth[None, None, :] - worth[:, None, None]
    return mdp.told((mdp.rewards(weights)[..., None] + more)[..., None])


def test_shaping_changes_partial_return_and_no_regret():
    mdp, weights, segments = (
        drawn(11, gamma=0.8, sure=True),
        numbers(12, 4),
        wandered(drawn(11, gamma=0.8, sure=True), 50, 4, 13),
    )
    other = shaped(mdp, weights, 3 * numbers(14, 7))
    close(SummedAdvantage(Exact(other))(ONE, segments), SummedAdvantage(Exact(mdp))(weights, segments))
    close(ChangeInReturn(other, Exact(other), 0.8)(ONE, segments), ChangeInReturn(mdp, Exact(mdp), 0.8)(weights, segments))
    earned = PartialReturn(other)(ONE, segments) - PartialReturn(mdp)(weights, segments)
    assert float(earned.std()) > 1
    plain = ChangeInReturn(other, Exact(other))(ONE, segments) - ChangeInReturn(mdp, Exact(mdp))(weights, segments)
    assert float(plain.abs().max()) > 0.1  # not discounted within the segment, it holds for γ = 1 only


def test_both_forms_of_regret_agree_where_moves_are_certain_and_nothing_is_discounted():
    mdp, weights = drawn(15, gamma=1.0, sure=True), numbers(16, 4)
    costs = mdp.told(-mdp.features.abs())
    segments, weights = wandered(costs, 60, 4, 17), weights.abs()
    live = torch.isfinite(optimal(costs, weights).values)
    assert bool(live.all())
    close(ChangeInReturn(costs, Exact(costs))(weights, segments), SummedAdvantage(Exact(costs))(weights, segments))


def test_fitted_weights_discounts_and_lengths_enter_as_the_formula_says():
    earned, start, end = numbers(18, 3), numbers(19, 3), numbers(20, 3)
    lengths = torch.tensor([1, 2, 3])
    found = change_in_return(earned, start, end, lengths, 0.5, (0.7, 1.1, 0.9))
    close(found, 0.7 * earned + 1.1 * torch.tensor([0.5, 0.25, 0.125]).double() * end - 0.9 * start)
    mask = torch.tensor([[True, True, False]])
    close(partial_return(torch.tensor([[1.0, 2.0, math.nan]], dtype=torch.float64), mask, 0.5), [2.0])


def test_a_mixture_of_policies_never_exceeds_the_best():
    values = torch.tensor([3.0, 2.0, 5.0], dtype=torch.float64)
    assert float(mixed_value(values, 0.001)) == pytest.approx(5, abs=1e-9)
    assert float(mixed_value(values, 1.0)) == pytest.approx(4.645579, abs=1e-6)
    assert all(float(mixed_value(values, t)) <= 5 for t in (0.01, 0.1, 10.0, 1000.0))


def test_the_gradient_moves_the_best_along_with_the_weights():
    mdp, weights = drawn(21), numbers(22, 4).requires_grad_()
    some = [numbers(k, 4) for k in range(30, 36)]
    mixed = candidates(mdp, some, temperature=0.5)
    for values in (Exact(mdp), mixed):
        for score in (ChangeInReturn(mdp, values, 0.9, (0.7, 1.1, 0.9)), SummedAdvantage(values)):
            segments = wandered(mdp, 20, 4, 23)
            assert torch.autograd.gradcheck(
                lambda w, score=score, segments=segments: score(w, segments), weights, atol=1e-6
            )
    fixed = optimal(mdp, weights.detach()).values
    (moved,) = torch.autograd.grad(Exact(mdp).states(weights).sum(), weights)
    assert float(moved.abs().max()) > 1  # V* held fixed would have none
    close(Exact(mdp).states(weights.detach()), fixed)


def test_candidates_leave_the_true_optimum_out():
    mdp, true = drawn(24), numbers(25, 4)
    some = [true, 2 * true, -true, numbers(26, 4), numbers(26, 4)]
    found = candidates(mdp, some, without=true)
    assert len(found.of_states) == 2 and len(candidates(mdp, some).of_states) == 3
    best = successor_features(mdp, optimal(mdp, true).policy)[0]
    assert all(float((psi - best).abs().max()) > 1e-3 for psi in found.of_states)
    assert bool((found.states(true) <= optimal(mdp, true).values + 1e-12).all())
    with pytest.raises(Refusal, match="draw more"):
        candidates(mdp, [true], without=true)


def compared(mdp: FiniteMDP, score: SegmentScore, weights: Tensor, count: int, seed: int, steps: int = 3) -> Comparisons:
    a, b = wandered(mdp, count, steps, seed), wandered(mdp, count, steps, seed + 1)
    gap = score(weights, a) - score(weights, b)
    return Comparisons(a, b, (torch.sign(gap) + 1) / 2)


def test_weights_are_learned_by_either_form_of_the_best_and_the_best_on_the_way_are_kept():
    mdp, true = drawn(27, sure=True), numbers(28, 4)
    told = SummedAdvantage(Exact(mdp))
    said = compared(mdp, told, true, 300, 29)
    pool = candidates(mdp, [numbers(k, 4) for k in range(100, 120)], without=true)
    for values in (Exact(mdp), pool):
        score = SummedAdvantage(values)
        found = learn(score, said, 0.1 * numbers(30, 4), steps=40, rate=0.2)
        assert len(found.losses) == 40 and found.loss == min(found.losses) < 0.5 * found.losses[0]
        assert float(loss_of(score, said)(found.weights)) == pytest.approx(found.loss, abs=1e-12)
        assert scaled_return(mdp, optimal(mdp, found.weights).policy, true) > 0.9


def test_pairs_swapped_add_nothing_to_a_loss_that_reads_strengths():
    mdp = drawn(31)
    score = PartialReturn(mdp)
    said = compared(mdp, score, numbers(32, 4), 30, 33)
    once, twice = (float(loss_of(score, rows)(numbers(34, 4))) for rows in (said, said.both_ways()))
    assert once == pytest.approx(twice, rel=1e-12)
    assert len(said.both_ways()) == 60 and len(said[:7]) == 7


def test_trajectories_of_numbers_become_segments_and_others_are_refused():
    column = lambda *xs: np.array(xs, dtype=np.float32)[:, None]  # noqa: E731
    short = Trajectory(column(2), column(1), final=np.array([3], dtype=np.float32), ended=True)
    long = Trajectory(column(0, 1), column(1, 1), final=np.array([2], dtype=np.float32))
    found = segments_of([short, long])
    assert found.last.tolist() == [3, 2] and found.lengths.tolist() == [1, 2] and found.first.tolist() == [2, 0]
    mdp = chain(1.0)
    close(ChangeInReturn(mdp, Exact(mdp))(ONE, found), [0.0, 0.0])
    close(PartialReturn(mdp)(ONE, found), [10.0, -2.0])
    with pytest.raises(Refusal, match="segment 1: what was seen after"):
        segments_of([Trajectory(column(0), column(0))])
    with pytest.raises(Refusal, match="segment 1: states and actions"):
        segments_of([Trajectory(column(0.5), column(0), final=np.array([1], dtype=np.float32))])


def test_steps_after_the_end_earn_nothing_and_have_no_regret():
    mdp = chain(1.0)
    longer, short = walks((2, 3, 3, 3)), walks((2, 3))
    for score in (PartialReturn(mdp), ChangeInReturn(mdp, Exact(mdp)), SummedAdvantage(Exact(mdp))):
        close(score(ONE, longer), score(ONE, short))


def test_a_table_whose_end_is_also_passed_through_gets_an_end_of_its_own():
    table = {0: {0: [(0.5, 1, 1.0, True), (0.5, 1, 3.0, False)]}, 1: {0: [(1.0, 0, 5.0, False)]}}
    found = of_table(table, 0.5, torch.tensor([1.0, 0.0]))
    assert found.sizes == (3, 1, 1) and found.terminal.tolist() == [False, False, True]
    assert found.at_start(torch.tensor([7.0, 8.0, 9.0]).double()) == 7
    close(optimal(found, ONE).values, [3.25 / 0.875, 5 + 0.5 * 3.25 / 0.875, 0.0])  # v0 = 2 + v1 / 4, v1 = 5 + v0 / 2
    plain = of_table({0: {0: [(1.0, 1, 1.0, True)]}, 1: {0: [(1.0, 0, 9.0, False)]}}, 0.5)
    close(optimal(plain, ONE).values, [1.0, 0.0])  # what a state does after the end is not read


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({0: {0: [(0.5, 0, 0.0, False)]}}, "transitions: not every row is of probabilities"),
        ({0: {0: [(1.0, 1, 0.0, False)]}}, "leads to 1, but states are 0 to 0"),
        ({0: {0: [(1.0, 0, 0.0, False)]}, 1: {1: []}}, "state 1: states must be"),
        ({}, "transitions"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, said: str):
    with pytest.raises(Refusal, match=said):
        of_table(table, 0.9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gamma": 1.5}, "gamma = 1.5"),
        ({"terminal": torch.zeros(3).bool()}, "they must be"),
        ({"features": torch.zeros(3, 3, 1)}, "features"),
        ({"starts": torch.full((4,), 0.5)}, "starts"),
        ({"features": torch.full((4, 2, 1), math.inf)}, "finite"),
    ],
)
def test_what_is_no_process_is_refused(change: dict[str, Any], said: str):
    mdp = chain(0.9)
    given = {"transitions": mdp.transitions, "features": mdp.features, "terminal": mdp.terminal, "gamma": 0.9}
    with pytest.raises(Refusal, match=said):
        FiniteMDP(**(given | change))


def test_environments_of_gymnasium_are_read_with_their_ends_and_starts():
    pytest.importorskip("gymnasium", reason="environments need the extra [embodied]")
    lake = of_environment("FrozenLake-v1", 0.99)
    assert lake.sizes == (16, 4, 1) and lake.terminal.nonzero().flatten().tolist() == [5, 7, 11, 12, 15]
    close(optimal(lake, ONE).values[:1], [0.5420259], 1e-6)
    cliff = of_environment("CliffWalking-v1", 1.0)
    close(optimal(cliff, ONE).values[36:37], [-13.0])  # up, eleven to the right, down
    taxi = of_environment("Taxi-v4", 1.0)
    best = optimal(taxi, ONE).values
    assert taxi.at_start(best) == pytest.approx(7.93, abs=0.01)
    with pytest.raises(Refusal, match="has no table"):
        of_environment("CartPole-v1", 0.9)
    with pytest.raises(Refusal, match="no environment that can be made"):
        of_environment("NoSuchLake-v1", 0.9)


def test_without_gymnasium_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    whole: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "gymnasium":
            raise ImportError(name)
        return whole(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Refusal, match=r'pip install "penchant\[embodied\]"'):
        of_environment("FrozenLake-v1", 0.9)


def test_simulated_annotators_compare_by_what_they_score_and_hold_rounded_equals_for_equal():
    mdp, nothing = chain(1.0), ONE * 0.0049
    a, b, c = walks((0, 1, 2)), walks((2, 1, 2)), walks((1, 2, 3))
    assert regret_teacher(mdp, ONE).answer(a, b).first == return_teacher(mdp, ONE).answer(c, a).first == 1
    assert regret_teacher(mdp, ONE).answer(c, a).first == return_teacher(mdp, ONE).answer(a, b).first == 0.5
    assert return_teacher(chain(0.9), nothing).answer(walks((0, 1)), walks((1, 0))).first == 0.5
    many = torch.zeros(20_000, dtype=torch.int64)
    noisy = regret_teacher(mdp, ONE, beta=1.0)
    first = noisy.answer(a[many], b[many], seed=3).first
    assert set(first) == {0.0, 1.0} and first.mean() == pytest.approx(0.880797, abs=0.01)
    assert (first == noisy.answer(a[many], b[many], seed=3).first).all()
    with pytest.raises(Refusal, match="above 0"):
        regret_teacher(mdp, ONE, beta=0.0)
    with pytest.raises(Refusal, match="1 first and 20000 second"):
        noisy.answer(a, b[many])


def test_answers_about_trajectories_become_rows_of_feedback():
    column = lambda *xs: np.array(xs, dtype=np.float32)[:, None]  # noqa: E731
    right = Trajectory(column(0, 1), column(1, 1), final=np.array([2], dtype=np.float32))
    back = Trajectory(column(2, 1), column(0, 1), final=np.array([2], dtype=np.float32))
    rows = regret_teacher(chain(1.0), ONE).answer([back, right], [right, right]).rows([("b", "r"), ("r", "r2")], "chain")
    assert [(row["chosen"], row["rejected"], row["strength"]) for row in rows] == [("r", "b", 1.0), ("r", "r2", 0.5)]


def test_a_delivery_earns_what_is_entered_and_a_blocked_move_pays_for_its_ground(recipe: Callable[[str], Any]):
    delivery = recipe("delivery")
    board = ["mCB", "#.S", "oc8"]  # row by row: mud, coin, block; house, road, sheep; block and coin on mud, goal on mud
    mdp = delivery.process(board)
    earned = mdp.rewards(delivery.WORTH)
    up, down, left, right = range(4)
    assert earned[0].tolist() == [-2, -2, -2, 0]  # out of the board, into the house, out of the board, to the coin
    assert earned[4, [up, down, left, right]].tolist() == [0, -1, -1, -50] and earned[1, right] == -2
    assert earned[7].tolist() == [-1, -2, -3, 50] and earned[4, left] == -1
    assert mdp.terminal.nonzero().flatten().tolist() == [5, 8] and bool((earned[5] == 0).all())
    assert torch.as_tensor(mdp.starts).nonzero().flatten().tolist() == [0, 1, 2, 4, 6, 7]
    moves, _ = delivery.table(board)
    assert moves[7][right] == [(1.0, 8, 50.0, True)] and moves[0][down] == [(1.0, 0, -2.0, False)]
    drawn, worth = delivery.drawn(3)
    assert 25 <= drawn.sizes[0] <= 100 and sorted(worth.tolist()) == sorted(delivery.WORTH.tolist())


def test_the_recipe_tells_models_of_preference_apart_in_a_short_run(
    recipe: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
):
    module = recipe("regret")
    monkeypatch.setattr(module, "STEPS", 60)
    monkeypatch.setattr(module, "SIZES", (30, 100))
    monkeypatch.setattr(module, "POLICIES", 8)
    found = module.shifted("regret", "regret", 0, 100), module.shifted("return", "return", 0, 100)
    assert found[0]["both noiseless"] == 1 and found[1]["both noiseless"] == 0
    assert set(module.run("regret", "regret, candidates", 0).values()) <= {0.0, 1.0}
    here, _ = module.grid(0)
    later = module.Grid(0, module.WORTH, whole=True)
    assert not bool(later.mdp.terminal[later.a.states[:, :-1]].any())
    assert bool(here.mdp.terminal[here.a.states[:, :-1]].any())

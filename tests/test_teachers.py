"""Scripted teachers and the choice of queries: the card's numbers, their statistics, the order of what they do."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from penchant.errors import Refusal
from penchant.feedback.queries import chosen, disagreement, entropy, far_apart, segments
from penchant.feedback.teachers import TEACHERS, Teacher, usual
from penchant.feedback.trajectories import Trajectory


def lived(rewards: list[float]) -> Trajectory:
    steps = len(rewards)
    return Trajectory(np.arange(steps)[:, None], np.zeros((steps, 1)), np.array(rewards))


def many(count: int = 100_000, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.random((count, steps)), rng.random((count, steps))


def test_a_myopic_teacher_weighs_the_last_step_whole_and_each_before_it_less():
    teacher = Teacher(gamma=0.9)
    weights = [float(teacher.recalled(row[None], np.ones((1, 4), bool))[0]) for row in np.eye(4)]
    assert weights == pytest.approx([0.729, 0.81, 0.9, 1.0], abs=1e-12)
    short = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[True, True, False, False]])
    assert teacher.recalled(*short)[0] == pytest.approx(1.9)  # its own last step, not the longest segment's


def test_a_myopic_teacher_of_segments_of_unequal_length_answers_as_of_each_alone():
    long, short = lived([3.0, 0.0, 0.0]), lived([2.2])  # 3 · 0.81 = 2.43
    assert Teacher(gamma=0.9).answer([long, short], [short, long]).first.tolist() == [1.0, 0.0]
    assert Teacher(gamma=0.8).answer([long], [short]).first.tolist() == [0.0]  # 1.92


@pytest.mark.parametrize(("beta", "p"), [(1.0, 0.622459), (10.0, 0.993307)])
def test_a_stochastic_teacher_prefers_by_the_logistic_of_the_difference(beta: float, p: float):
    teacher = Teacher(beta=beta)
    assert teacher.wins(np.array([1.0]), np.array([0.5]))[0] == pytest.approx(p, abs=1e-6)
    said = teacher.answer(np.full((100_000, 1), 1.0), np.full((100_000, 1), 0.5)).first
    assert said.mean() == pytest.approx(p, abs=0.006)


def test_the_oracle_takes_the_better_and_of_equals_the_first():
    assert Teacher().answer(np.array([[1.0], [0.5], [2.0]]), np.array([[0.5], [1.0], [2.0]])).first.tolist() == [
        1.0,
        0.0,
        1.0,
    ]


def test_a_mistaken_teacher_turns_its_share_of_a_hundred_thousand_answers():
    one, two = many()
    begun = time.process_time()
    wrong = TEACHERS["mistake"].answer(one, two, seed=3).first != TEACHERS["oracle"].answer(one, two, seed=3).first
    assert time.process_time() - begun < 2
    assert wrong.mean() == pytest.approx(0.1, abs=0.003)
    assert (TEACHERS["mistake"].answer(one, two, seed=3).first == TEACHERS["mistake"].answer(one, two, seed=3).first).all()


def test_what_is_skipped_gives_no_row_and_what_is_equal_is_a_tie_exactly_below_the_threshold():
    one, two = many(20_000, 4)
    margin = 2.0
    every = Teacher(skip=0.8, equal=0.1, mistake=0.3, gamma=0.9)
    said = every.answer(one, two, usual=margin)
    gap, best = np.abs(one.sum(-1) - two.sum(-1)), np.maximum(one.sum(-1), two.sum(-1))
    assert (said.skipped == ~(best > 0.8 * margin)).all() and 0 < said.skipped.sum() < len(said)
    assert (said.equal == ((gap < 0.1 * margin) & ~said.skipped)).all() and said.equal.any()
    rows = said.rows([(f"a{i}", f"b{i}") for i in range(len(said))], "reach")
    assert len(rows) == (~said.skipped).sum()
    tie = int(np.flatnonzero(said.equal)[0])
    assert {"prompt": "reach", "chosen": f"a{tie}", "rejected": f"b{tie}", "strength": 0.5} in rows
    lost = int(np.flatnonzero(said.first == 0)[0])
    assert {"prompt": "reach", "chosen": f"b{lost}", "rejected": f"a{lost}", "strength": 1.0} in rows


def test_the_authors_code_squares_the_share():
    assert Teacher(skip=0.1).threshold(0.1, 20.0) == pytest.approx(2.0)
    assert Teacher(skip=0.1, thresholds="code").threshold(0.1, 20.0) == pytest.approx(0.2)
    assert usual([900.0, *([10.0] * 5), *([30.0] * 5)], 50, 500) == pytest.approx(2.0)  # the last ten alone


ONE, TWO = np.ones((1, 1)), np.ones((2, 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Teacher(beta=0.0), "above 0"),
        (lambda: Teacher(gamma=1.1), "gamma"),
        (lambda: Teacher(mistake=1.5), "mistake"),
        (lambda: Teacher(mistake=math.nan), "mistake"),
        (lambda: Teacher(skip=0.1).answer(ONE, TWO[:1]), "usual"),
        (lambda: Teacher(equal=0.1).answer(-ONE, -ONE, usual=-3.0), "raise them"),
        (lambda: Teacher().answer(np.full((1, 2), np.nan), ONE), "finite"),
        (lambda: Teacher().answer([lived([1.0])[0:1]], [Trajectory(np.zeros((1, 1)), np.zeros((1, 1)))]), "no rewards"),
        (lambda: Teacher().answer(ONE, TWO), "1 first and 2 second"),
        (lambda: usual([], 5, 10), "0 returns"),
        (lambda: Teacher().answer(ONE, ONE).rows([]), "0 pairs"),
    ],
)
def test_what_a_teacher_cannot_answer_is_refused(make: object, said: str):
    with pytest.raises(Refusal, match=said):
        make()  # pyright: ignore[reportCallIssue]


WINS = np.array([[0.9, 0.5, 0.1, 0.6], [0.1, 0.5, 0.1, 0.8]])


def test_an_ensemble_is_asked_where_it_disagrees_or_wavers():
    assert disagreement(WINS).tolist() == pytest.approx([0.4, 0, 0, 0.1])
    wavering = entropy(WINS)
    assert wavering[1] == pytest.approx(math.log(2)) and wavering[0] == pytest.approx(wavering[2])
    assert entropy(np.array([[1.0, 0.0]])).tolist() == [0.0, 0.0]
    assert chosen("disagreement", 2, candidates=4, wins=WINS) == [0, 3]
    assert chosen("entropy", 1, candidates=4, wins=WINS) == [1]
    assert chosen("uniform", 2, candidates=4) == [0, 1]


def test_k_center_spreads_from_what_was_asked_before_and_asks_nothing_twice():
    at = np.array([[0.0], [1.0], [10.0], [9.0]])
    assert far_apart(at, np.array([[0.0]]), 2) == [2, 1]
    assert sorted(far_apart(np.zeros((3, 1)), np.zeros((1, 1)), 3)) == [0, 1, 2]
    seen = np.array([[0.0], [5.0], [50.0], [6.0]])  # the farthest is not among the half that is disagreed about
    assert chosen("k-center of disagreement", 1, candidates=4, wins=WINS, seen=seen, known=np.zeros((1, 1))) == [3]
    assert chosen("k-center", 1, candidates=4, seen=seen, known=np.zeros((1, 1))) == [2]


def test_segments_lie_within_their_trajectories_and_any_place_can_come():
    whole = [lived([0.0, 1.0, 2.0, 3.0]), lived([7.0])]
    found = segments(whole, 3, 50, seed=1)
    assert {tuple(x.observations[:, 0].tolist()) for x in found} == {(0.0, 1.0, 2.0), (1.0, 2.0, 3.0)}
    with pytest.raises(Refusal, match="longest of 2"):
        segments(whole, 5, 1, seed=1)
    with pytest.raises(Refusal, match="5 queries of 4"):
        chosen("uniform", 5, candidates=4)
    with pytest.raises(Refusal, match="each member"):
        chosen("entropy", 1, candidates=4)

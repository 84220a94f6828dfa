"""Reward models small enough to be fitted many times, each asked only about prompts it did not learn from. They say how far
labels follow from texts; what that means is for others to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

Floats = NDArray[np.float64]

FOLDS = 5
STRENGTHS = (0.1, 1.0, 10.0)
"""C of the logistic regression, from which the best on unseen prompts is taken."""
TRIED_ON = 3000
"""Pairs on which the strengths are tried."""
DENSE = 0.3
"""What measures count beside words in the penalty: a text's words have length 1 together."""
FEWEST_GROUPS = 10


def design(dense: Floats, words: Any | None = None) -> Any:
    """Differences of measures and of words beside each other."""
    block = sparse.csr_matrix(DENSE * dense)
    return block if words is None else sparse.csr_matrix(sparse.hstack([block, words]))


def folds(groups: Sequence[Any], seed: int, count: int = FOLDS) -> NDArray[np.int64]:
    """The fold of each pair; pairs of one prompt are in one. Where nearly all pairs share a prompt each is its own."""
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        which = np.arange(len(which))
    order = np.random.default_rng(seed).permutation(int(which.max()) + 1)
    return order[which] % count


def margins(x: Any, groups: Sequence[Any], seed: int, trust: Floats | None = None) -> Floats:
    """[pairs] r(chosen) − r(rejected) by a Bradley-Terry model r linear in the features, that has seen no pair of the same
    prompt. `trust`, 2η − 1 of each label's annotator, is how much a label counts while fitting; below 0 it counts for the
    other side.

    The logistic regression has no intercept, so it does not matter which side a pair is shown from; sides are drawn, because
    a classifier wants two classes."""
    n = x.shape[0]
    draw = np.random.default_rng(seed)
    side = draw.choice([-1.0, 1.0], n)
    weight = np.ones(n) if trust is None else np.abs(trust)
    label = side if trust is None else side * np.where(trust < 0, -1.0, 1.0)
    shown = sparse.csr_matrix(sparse.diags(side) @ x)
    fold = folds(groups, seed)
    some = np.sort(draw.permutation(n)[:TRIED_ON])
    tried = [_fitted(shown[some], label[some], weight[some], fold[some], c) * side[some] for c in STRENGTHS]
    worth = [float((weight[some] * np.log(expit(np.clip(m * label[some] * side[some], -30, 30)))).sum()) for m in tried]
    best = STRENGTHS[int(np.argmax(worth))]
    return _fitted(shown, label, weight, fold, best) * side


def _fitted(x: Any, label: Floats, weight: Floats, fold: NDArray[np.int64], strength: float) -> Floats:
    """Scores of every row by the model fitted on the other folds."""
    from sklearn.linear_model import LogisticRegression

    out = np.zeros(x.shape[0])
    for k in np.unique(fold):
        learn, ask = np.flatnonzero((fold != k) & (weight > 0)), np.flatnonzero(fold == k)
        if len(np.unique(label[learn])) < 2:
            continue
        model = LogisticRegression(C=strength, fit_intercept=False, solver="liblinear", max_iter=1000, random_state=0)
        model.fit(x[learn], label[learn] > 0, sample_weight=weight[learn])
        out[ask] = x[ask] @ model.coef_[0]
    return out

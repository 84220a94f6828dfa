"""The methods whose loss couples the rows of a step, a second time, as `twins.py` has the others. No code is shared with the
library, and no torch is used."""

from __future__ import annotations

from decimal import Decimal

from twins import ZERO, Columns, Rows, Twin, bt, dpo, gain, prefers, product


def relative_po(rows: Rows, columns: Columns, beta: Decimal, own: Decimal) -> list[Decimal]:
    n, values = len(rows), []
    for w, mine in rows:
        others = [-bt(w, l, beta).ln() for _, l in rows if l is not mine]
        values.append(own * dpo(w, mine, beta) + (1 - own) * sum(others, ZERO) / (n - 1) if n > 1 else dpo(w, mine, beta))
    return values


def aot(rows: Rows, columns: Columns, beta: Decimal) -> list[Decimal]:
    """The k-th smallest odds under the policy against the k-th smallest under the reference."""
    odds = [w.likelihood / l.likelihood for w, l in rows]
    before = sorted(product(x.exp() for x in w.ref) / product(x.exp() for x in l.ref) for w, l in rows)
    return [-prefers(x**beta, before[sorted(odds).index(x)] ** beta).ln() for x in odds]


def aot_unpaired(rows: Rows, columns: Columns, beta: Decimal) -> list[Decimal]:
    """Each of g good responses is repeated b times and each of b bad ones g times: then there are as many of both."""
    flat = [(y, y.label if len(row) == 1 else k == 0) for row in rows for k, y in enumerate(row)]
    good, bad = (sorted(y.odds_against_ref for y, kind in flat if kind is which) for which in (True, False))
    copies = [(x, y) for x, y in zip(repeated(good, len(bad)), repeated(bad, len(good)), strict=True)]
    values = [-prefers(x**beta, y**beta).ln() for x, y in copies]
    return [sum(values[k : k + len(bad)], ZERO) / len(bad) for k in range(0, len(values), len(bad))]


def repeated(xs: list[Decimal], times: int) -> list[Decimal]:
    return [x for x in xs for _ in range(times)]


def beta_dpo(
    rows: Rows, columns: Columns, beta: Decimal, alpha: Decimal, filter: Decimal, momentum: Decimal, **state: Decimal
) -> list[Decimal]:
    """For a state's `std` so small that the draw is certain: the margins nearest to the mean are kept. The step's β is a
    number: it is computed from the margins as they stand, and differences taken later do not move it."""
    fixed = beta_dpo_step(tuple(Decimal(float(gain(w) - gain(l))) for w, l in rows), beta, alpha, filter, state["mean"])
    n, kept = len(rows), sum(fixed[1])
    return [(n * dpo(w, l, fixed[0]) / kept if k else ZERO) for (w, l), k in zip(rows, fixed[1], strict=True)]


def beta_dpo_step(
    margins: tuple[Decimal, ...], beta: Decimal, alpha: Decimal, filter: Decimal, mean: Decimal
) -> tuple[Decimal, list[bool]]:
    count = max(1, round((1 - filter) * len(margins)))
    kept = sorted(range(len(margins)), key=lambda i: abs(margins[i] - mean))[:count]
    now = sum((margins[i] for i in kept), ZERO) / count
    return max(Decimal("0.001"), beta * (1 + alpha * (now - mean))), [i in kept for i in range(len(margins))]


ALL: dict[tuple[str, str], Twin] = {
    ("AOT", "pairs"): aot,
    ("AOTUnpaired", "pairs"): aot_unpaired,
    ("AOTUnpaired", "responses"): aot_unpaired,
    ("RelativePO", "pairs"): relative_po,
    ("BetaDPO", "pairs"): beta_dpo,
}

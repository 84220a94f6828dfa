"""The methods a second time, from the papers, by another route: decimal numbers of 80 digits, probabilities where the
library uses log-probabilities, derivatives by differences. No code is shared with the library, and no torch is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, getcontext
from typing import Any

getcontext().prec = 80
D = Decimal
ZERO, ONE = D(0), D(1)


@dataclass
class Response:
    """Log-probs per step, of the policy, of the reference and of further anchors."""

    logp: list[Decimal]
    ref: list[Decimal]
    label: bool = True
    gain: Decimal = ZERO
    anchors: dict[str, list[Decimal]] = field(default_factory=dict)
    values: dict[str, list[Decimal]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.logp)

    @property
    def likelihood(self) -> Decimal:
        """π(y) = Π π(y_t)"""
        return product(x.exp() for x in self.logp)

    @property
    def odds_against_ref(self) -> Decimal:
        """π(y) / π_ref(y)"""
        return self.odds_against(ref=D(1))

    def odds_against(self, **weights: Decimal) -> Decimal:
        """π(y) / Π_k π_k(y)^weight_k"""
        tables = {**self.anchors, "ref": self.ref}
        return self.likelihood / product(product(x.exp() for x in tables[name]) ** w for name, w in weights.items())


Rows = Sequence[Sequence[Response]]
Columns = dict[str, list[Decimal]]


def product(xs: Any) -> Decimal:
    out = D(1)
    for x in xs:
        out *= x
    return out


def prefers(a: Decimal, b: Decimal) -> Decimal:
    """Bradley-Terry: P(w ≻ l) for strengths a and b."""
    return a / (a + b)


def gain(y: Response) -> Decimal:
    return y.odds_against_ref.ln()


def per_step(y: Response) -> Decimal:
    """The geometric mean of the step probabilities."""
    return (sum(y.logp, D(0)) / y.n).exp()


def bt(w: Response, l: Response, beta: Decimal) -> Decimal:
    return prefers(w.odds_against_ref**beta, l.odds_against_ref**beta)


def dpo(w: Response, l: Response, beta: Decimal) -> Decimal:
    return -bt(w, l, beta).ln()


def cdpo(w: Response, l: Response, beta: Decimal, flip: Decimal) -> Decimal:
    p = bt(w, l, beta)
    return -((1 - flip) * p.ln() + flip * (1 - p).ln())


def osp(w: Response, l: Response, beta: Decimal, strength: Decimal) -> Decimal:
    p = bt(w, l, beta)
    return -(strength * p.ln() + (1 - strength) * (1 - p).ln())


def ipo(w: Response, l: Response, tau: Decimal, average: bool) -> Decimal:
    h = gain(w) / w.n - gain(l) / l.n if average else gain(w) - gain(l)
    return h * h - h / tau + 1 / (4 * tau * tau)


def simpo(w: Response, l: Response, beta: Decimal, gamma: Decimal) -> Decimal:
    return -prefers(per_step(w) ** beta, per_step(l) ** beta * gamma.exp()).ln()


def cpo(w: Response, l: Response, beta: Decimal) -> Decimal:
    return -prefers(w.likelihood**beta, l.likelihood**beta).ln()


def gamma_dpo(w: Response, l: Response, beta: Decimal, gamma: Decimal) -> Decimal:
    return -prefers(w.odds_against(ref=gamma) ** beta, l.odds_against(ref=gamma) ** beta).ln()


def orpo(w: Response, l: Response) -> Decimal:
    odds = lambda p: p / (1 - p)  # noqa: E731
    return -prefers(odds(per_step(w)), odds(per_step(l))).ln()


def nll_pair(w: Response, l: Response, reduction: str) -> Decimal:
    return -(per_step(w) if reduction == "response" else w.likelihood).ln()


def nll(y: Response, reduction: str) -> Decimal | None:
    """A bad response has no value."""
    return nll_pair(y, y, reduction) if y.label else None


def kto(y: Response, z0: Decimal, beta: Decimal, desirable: Decimal, undesirable: Decimal) -> Decimal:
    """λ_y − v(x, y), the value v of the paper: λ σ(± β (u − z0))."""
    over = (y.odds_against_ref / z0.exp()) ** beta
    return desirable - desirable * prefers(over, D(1)) if y.label else undesirable - undesirable * prefers(D(1), over)


def rdpo(w: Response, l: Response, beta: Decimal, flip: Decimal) -> Decimal:
    p = bt(w, l, beta)
    return (flip * (1 - p).ln() - (1 - flip) * p.ln()) / (1 - 2 * flip)


def hinge(w: Response, l: Response, beta: Decimal) -> Decimal:
    return max(D(0), 1 - beta * (gain(w) - gain(l)))


def slic(w: Response, l: Response, delta: Decimal) -> Decimal:
    return max(D(0), delta - (w.likelihood / l.likelihood).ln())


def dpop(w: Response, l: Response, beta: Decimal, penalty: Decimal) -> Decimal:
    below = min(D(1), w.odds_against_ref)
    return -prefers((w.odds_against_ref * below**penalty) ** beta, l.odds_against_ref**beta).ln()


def length_regularised_dpo(w: Response, l: Response, beta: Decimal, alpha: Decimal) -> Decimal:
    strength = lambda y: y.odds_against_ref**beta * (alpha * y.n).exp()  # noqa: E731
    return -prefers(strength(w), strength(l)).ln()


def lndpo(w: Response, l: Response, beta: Decimal) -> Decimal:
    strength = lambda y: y.odds_against_ref ** (beta / y.n)  # noqa: E731
    return -prefers(strength(w), strength(l)).ln()


def exo(w: Response, l: Response, beta: Decimal, flip: Decimal) -> Decimal:
    p = bt(w, l, beta)
    return p * (p / (1 - flip)).ln() + (1 - p) * ((1 - p) / flip).ln()


def is_data(y: Response, beta: Decimal) -> Decimal:
    """How surely a response is told from one of the reference: σ(β log π/π_ref)."""
    return prefers(y.odds_against_ref**beta, D(1))


def nca(w: Response, l: Response, beta: Decimal) -> Decimal:
    a, b = is_data(w, beta), is_data(l, beta)
    return -(a * ((1 - a) * (1 - b)).sqrt()).ln()


def apo_zero(w: Response, l: Response, beta: Decimal) -> Decimal:
    return is_data(l, beta) - is_data(w, beta)


def apo_down(w: Response, l: Response, beta: Decimal) -> Decimal:
    return is_data(w, beta) - bt(w, l, beta)


def discopop(w: Response, l: Response, beta: Decimal, tau: Decimal) -> Decimal:
    p, m = bt(w, l, beta), bt(w, l, beta / tau)
    return -(1 - m) * p.ln() + m * (l.odds_against_ref / w.odds_against_ref) ** beta


def missed(w: Decimal, l: Decimal, target: Decimal) -> Decimal:
    """(ln w/l − target)², multiplied out."""
    h = (w / l).ln()
    return h * h - 2 * h * target + target * target


def inpo(w: Response, l: Response, eta: Decimal, ratio: Decimal) -> Decimal:
    over = lambda y: y.odds_against(ref=ratio, prev=1 - ratio)  # noqa: E731
    return missed(over(w), over(l), 1 / (2 * eta))


def mnpo(w: Response, l: Response, eta: Decimal, ratio: Decimal, decay: Decimal, normalise: str) -> Decimal:
    def over(y: Response) -> Decimal:
        past = [name for name in y.anchors if name.startswith("history")]
        shares = [decay**j if j else D(1) for j in range(len(past))]
        weights = {name: (1 - ratio) * share / sum(shares) for name, share in zip(past, shares, strict=True)}
        return y.odds_against(ref=ratio, **weights) ** (D(1) / y.n if normalise == "mean" else D(1))

    return missed(over(w), over(l), 1 / (2 * eta))


def onpo(w: Response, l: Response, eta: Decimal) -> Decimal:
    return missed(w.odds_against(prev=D(1)), l.odds_against(prev=D(1)), eta / 2)


def nash_ipo(w: Response, l: Response, tau: Decimal, strength: Decimal) -> Decimal:
    return missed(w.odds_against_ref, l.odds_against_ref, (2 * strength - 1) / (2 * tau))


def egpo(w: Response, l: Response, beta: Decimal, margin: Decimal) -> Decimal:
    return missed(w.odds_against_ref**beta, l.odds_against_ref**beta, margin) / (beta * beta)


def rebel(w: Response, l: Response, eta: Decimal, margin: Decimal) -> Decimal:
    return missed(w.odds_against(prev=D(1)), l.odds_against(prev=D(1)), eta * margin) / (eta * eta)


def sppo(w: Response, l: Response, eta: Decimal, hard: bool, strength: Decimal = ZERO) -> Decimal:
    wins = [(w, D(1) if hard else strength), (l, D(0) if hard else 1 - strength)]
    return sum((missed(y.odds_against(prev=D(1)), D(1), eta * (win - D("0.5"))) for y, win in wins), D(0)) / 2


def infonca(*ys: Response, beta: Decimal, alpha: Decimal) -> Decimal:
    grades, strengths = [(y.gain / alpha).exp() for y in ys], [y.odds_against_ref**beta for y in ys]
    return -sum((g / sum(grades) * (s / sum(strengths)).ln() for g, s in zip(grades, strengths, strict=True)), D(0))


def bco(w: Response, l: Response, beta: Decimal, good: Decimal, bad: Decimal, **steps: Decimal) -> Decimal:
    """Two binary classifications, each against the middle of the rewards; the state's step counts are not read."""
    middle = ((good + bad) / 2).exp()
    return -(prefers(w.odds_against_ref**beta, middle) * prefers(middle, l.odds_against_ref**beta)).ln()


def bco_one(y: Response, beta: Decimal, good: Decimal, bad: Decimal, **steps: Decimal) -> Decimal:
    middle, strength = ((good + bad) / 2).exp(), y.odds_against_ref**beta
    return -(prefers(strength, middle) if y.label else prefers(middle, strength)).ln()


def tdpo(w: Response, l: Response, beta: Decimal, alpha: Decimal = ONE) -> Decimal:
    """Bradley-Terry with strengths (π/π_ref)^β exp(α β Σ KL)."""
    strength = lambda y: (y.odds_against_ref * (alpha * sum(y.values["kl"], D(0))).exp()) ** beta  # noqa: E731
    return -prefers(strength(w), strength(l)).ln()


def fdpo(w: Response, l: Response, beta: Decimal, divergence: str) -> Decimal:
    """Bradley-Terry on strengths exp(β f′(π/π_ref))."""
    slope = {
        "reverse_kl": lambda v: v.ln(),
        "forward_kl": lambda v: -1 / v,
        "jensen_shannon": lambda v: (2 * v / (1 + v)).ln(),
    }[divergence]
    return alike(beta * (slope(w.odds_against_ref) - slope(l.odds_against_ref)))


def alpha_divergence_dpo(w: Response, l: Response, beta: Decimal, alpha: Decimal) -> Decimal:
    return alike(beta * (l.odds_against_ref**-alpha - w.odds_against_ref**-alpha) / alpha)


def alike(margin: Decimal) -> Decimal:
    """−log of the probability that a margin says; the margin itself where e^margin has no decimal."""
    return -margin if margin < -(10**6) else (1 + (-margin).exp()).ln()


def length_desensitised_dpo(w: Response, l: Response, beta: Decimal, alpha: Decimal) -> Decimal:
    public = min(w.n, l.n)

    def strength(y: Response) -> Decimal:
        first, rest = Response(y.logp[:public], y.ref[:public]), Response(y.logp[public:], y.ref[public:])
        return (first.odds_against_ref * rest.odds_against_ref**alpha) ** beta

    return -prefers(strength(w), strength(l)).ln()


def reward_aware_po(w: Response, l: Response, beta: Decimal, eta: Decimal, distance: str, margin: Decimal) -> Decimal:
    ours, theirs = bt(w, l, beta), prefers((eta * margin).exp(), D(1))
    if distance == "squared":
        return (beta * (gain(w) - gain(l)) - eta * margin) ** 2
    a, b = (theirs, ours) if distance == "backward" else (ours, theirs)
    return a * (a / b).ln() + (1 - a) * ((1 - a) / (1 - b)).ln()


def copg(*ys: Response, beta: Decimal, scale: str) -> Decimal:
    """K/(K−1) times the squared distances of the regularised rewards to their mean."""
    held = [y.gain - beta * gain(y) for y in ys]
    mean = sum(held, ZERO) / len(held)
    spread = sum(((r - mean) ** 2 for r in held), ZERO) * len(held) / max(len(held) - 1, 1)
    return spread / (2 * beta) if scale == "paper" else spread


def trpa(
    rows: Sequence[Sequence[Response]],
    columns: dict[str, list[Decimal]],
    beta: Decimal,
    anisotropy: Decimal,
    best: Decimal,
    normalise: str,
) -> list[Decimal]:
    """One value per pair of levels: P(i ≻ j) by Bradley-Terry, the winner's exponent depending on its level."""
    over = lambda y, a: y.odds_against_ref ** (a * beta / (y.n if normalise == "mean" else 1))  # noqa: E731
    values = []
    for ys in rows:
        for i in ys:
            a = anisotropy if i.gain >= best else D(1)
            values += [-prefers(over(i, a), over(j, a)).ln() for j in ys if i.gain > j.gain]
    return values


def bradley_terry(
    rows: Sequence[Sequence[Response]],
    columns: dict[str, list[Decimal]],
    margin: Decimal,
    centre: Decimal,
    flip: Decimal,
    strength: bool,
    lapse: Decimal,
) -> list[Decimal]:
    """Scores as strengths e^r: the chosen must win with a handicap of e^m, and so must the rejected where the label is wrong. Who
    answers by chance takes either alike."""
    values = []
    said = lambda a, b: (1 - lapse) * prefers(a, b) + lapse / 2  # noqa: E731
    for i, (w, l) in enumerate(rows):
        a, b, handicap = w.likelihood, l.likelihood, (margin * columns["margin"][i] if margin else ZERO).exp()
        p = columns["strength"][i] if strength else ONE
        q = p - 2 * flip * p + flip
        values.append(-q * said(a, b * handicap).ln() - (1 - q) * said(b, a * handicap).ln() + centre * (a * b).ln() ** 2)
    return values


def _error(y: Response) -> Decimal:
    return sum(y.values["error"], ZERO) / y.n


def _link(x: Decimal) -> Decimal:
    """x / (eˣ − 1), the mean of a series of Bernoulli numbers; 1 at 0."""
    return ONE if x == 0 else x / (x.exp() - 1)


def mapo(w: Response, l: Response, beta: Decimal, kappa: Decimal, timesteps: Decimal) -> Decimal:
    a, b = ((timesteps * _link(kappa * _error(y))).exp() for y in (w, l))
    return _error(w) - beta * prefers(a, b).ln()


def power_mapo(w: Response, l: Response, beta: Decimal) -> Decimal:
    a, b = ((_link(_error(y)) ** beta).exp() for y in (w, l))
    return _error(w) - prefers(a, b).ln() / beta


def seppo(w: Response, l: Response, beta: Decimal, flip: str) -> Decimal:
    s = ONE if w.odds_against_ref >= 1 else {"turn": -ONE, "drop": ZERO, "never": ONE}[flip]
    return -prefers(w.odds_against_ref**beta, l.odds_against_ref ** (s * beta)).ln()


def smpo(w: Response, l: Response, beta: Decimal, gamma: Decimal, strength: Decimal) -> Decimal:
    """With mixtures of the two densities for chosen and rejected: α = γ P of one, γ − α of the other."""
    alpha = gamma * strength
    a, b = w.odds_against_ref**beta, l.odds_against_ref**beta
    return -prefers(a**alpha * b ** (gamma - alpha), a ** (gamma - alpha) * b**alpha).ln()


def diffusion_kto(
    y: Response, q: Decimal, beta: Decimal, desirable: Decimal, undesirable: Decimal, utility: str
) -> Decimal:
    over = (y.odds_against_ref / q.exp()) ** beta
    right = prefers(over, ONE) if y.label else prefers(ONE, over)
    log_unlike = prefers(ONE, over).ln()
    felt = {
        "kahneman-tversky": right,
        "loss-averse": right.ln(),
        "risk-seeking": -log_unlike if y.label else log_unlike,
    }[utility]
    return (desirable if y.label else undesirable) * (1 - felt)


def cpl(
    w: Response,
    l: Response,
    alpha: Decimal,
    bias: Decimal,
    gamma: Decimal,
    kl: bool,
    soft: bool,
    strength: Decimal = ONE,
) -> Decimal:
    def likely(y: Response) -> Decimal:
        """Π (π(a_t) / π_ref(a_t))^(α γᵗ)"""
        odds = [x - (r if kl else ZERO) for x, r in zip(y.logp, y.ref, strict=True)]
        return product((alpha * gamma**t * x).exp() for t, x in enumerate(odds))

    one, other = prefers(likely(w), likely(l) ** bias), prefers(likely(l), likely(w) ** bias)
    p = strength if soft else ONE
    return -p * one.ln() - (1 - p) * other.ln()


Twin = Callable[..., list[Decimal]]
"""A second derivation: the loss values of all rows of a step, each row a list of its responses, from the rows, the columns
(one value per row), the method's fields and its state."""


def each(f: Callable[..., Decimal | None]) -> Twin:
    """A method whose loss is one row's own; None where a row has no value."""

    def twin(rows: Rows, columns: Columns, **fields: Any) -> list[Decimal]:
        values = [f(*row, **fields, **{name: x[i] for name, x in columns.items()}) for i, row in enumerate(rows)]
        return [x for x in values if x is not None]

    return twin


_PAIRED = {
    "DPO": dpo, "CDPO": cdpo, "IPO": ipo, "SimPO": simpo, "CPO": cpo, "ORPO": orpo, "NLL": nll_pair,
    "RDPO": rdpo, "Hinge": hinge, "SLiC": slic, "DPOP": dpop, "LengthRegularisedDPO": length_regularised_dpo,
    "LNDPO": lndpo, "OSP": osp, "EXO": exo, "NCA": nca, "APOZero": apo_zero, "APODown": apo_down, "DiscoPOP": discopop,
    "FDPO": fdpo, "GammaDPO": gamma_dpo, "AlphaDivergenceDPO": alpha_divergence_dpo,
    "LengthDesensitisedDPO": length_desensitised_dpo, "RewardAwarePO": reward_aware_po,
    "INPO": inpo, "MNPO": mnpo, "ONPO": onpo, "NashIPO": nash_ipo, "EGPO": egpo, "REBEL": rebel, "SPPO": sppo,
    "BCO": bco, "TDPO": tdpo, "TDPO2": tdpo,
    "MaPO": mapo, "PowerMaPO": power_mapo, "SePPO": seppo, "SmPO": smpo, "CPL": cpl,
}  # fmt: skip
ALL: dict[tuple[str, str], Twin] = {
    **{(name, "pairs"): each(f) for name, f in _PAIRED.items()},
    ("BradleyTerry", "pairs"): bradley_terry,
    ("KTO", "responses"): each(kto),
    ("NLL", "responses"): each(nll),
    ("BCO", "responses"): each(bco_one),
    ("DiffusionKTO", "responses"): each(diffusion_kto),
    ("CoPG", "lists"): each(copg),
    ("TRPA", "lists"): trpa,
    ("InfoNCA", "lists"): each(infonca),
}
"""The second derivation by method and kind of data."""

STEP = D(10) ** -25


def slopes(f: Callable[[], list[Decimal]], responses: Sequence[Response]) -> list[list[float]]:
    """dΣf/dlogp of every step, by central differences: the error is of the order of 1e-50."""
    out: list[list[float]] = []
    for y in responses:
        row = []
        for t, x in enumerate(y.logp):
            y.logp[t] = x + STEP
            above = sum(f(), ZERO)
            y.logp[t] = x - STEP
            below = sum(f(), ZERO)
            y.logp[t] = x
            row.append(float((above - below) / (2 * STEP)))
        out.append(row)
    return out

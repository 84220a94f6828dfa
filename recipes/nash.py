"""Nash: where preferences go in circles there is no reward to climb, but a policy that no other beats.

Claim     Regression on pairs of the policy's own responses, with the probability of preference as target (online IPO), comes
          to rest at the Nash policy of the regularised game; the same loss on pairs from a fixed set comes to rest elsewhere,
          at what the set's average rates highest (Borda); online DPO does not rest at the Nash policy. Of the mirror steps,
          one that is also held by several past policies (MNPO) swings less than INPO where the step is large, and optimism
          (ONPO) brings the last policy to the equilibrium of the game without regularisation, where plain steps circle.
Source    Calandriello et al. 2024, arXiv 2403.08635 (online IPO, IPO-MD); Zhang et al. 2024, arXiv 2407.00617 (INPO); Wu et
          al. 2025, arXiv 2509.23102 (MNPO); Zhang et al. 2025, arXiv 2502.16852 (ONPO).
Run       Games of numbered responses with a random matrix of preferences. Pairs are not drawn: every pair of responses
          counts with its probability, so that all figures are exact and depend on the game alone. Online IPO descends its
          gradient; a mirror step's loss is a square in the logits and is solved in one Newton step.
          Budget: 60 CPU-seconds.
Showed    Over ten games, in nats: its own pairs end at the Nash policy (below 1e-4), a fixed set 0.08 [0.03, 0.12] from it and
          at Borda, IPO-MD with 1/8 of the reference 0.0007, online DPO 0.24 [0.14, 0.35]. Gap after 60 mirror steps at
          τ = 0.07: INPO 0.13 [0.02, 0.24], MNPO with two past policies 0.00003, with four 0.01, IPO answering in full 0.52
          [0.29, 0.76]; at τ = 0.05 two past policies still swing, 0.10 against INPO's 0.29. Without regularisation, from
          0.18 at the start: mirror steps 0.44 [0.27, 0.61], ONPO 0.008. 36 CPU-seconds.

    python recipes/nash.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from study import Arm, Study, study
from torch import Tensor

from penchant.objectives import DPO, INPO, IPO, MNPO, ONPO, NashIPO, Objective, Pairs, Scored

SEEDS = tuple(range(10))
TAU = 0.1
STEPS, RATE = 500, 0.15


# Games ---------------------------------------------------------------------------------------------


def game(seed: int, responses: int = 5) -> tuple[Tensor, Tensor]:
    """Preferences in circles (each response is preferred to the next two and not to the two before), some surer than others;
    and a reference policy."""
    make = torch.Generator().manual_seed(seed)
    sure = 0.5 + 0.5 * torch.rand(responses, responses, generator=make, dtype=torch.float64)
    ahead = (torch.arange(responses)[None] - torch.arange(responses)[:, None]) % responses
    preferences = torch.where((ahead > 0) & (2 * ahead < responses), sure, 0.5)
    preferences = torch.where(2 * ahead > responses, 1 - preferences.T, preferences)
    reference = torch.rand(responses, generator=make, dtype=torch.float64) + 0.5
    return preferences, reference / reference.sum()


def opinions(seed: int, responses: int = 5) -> tuple[Tensor, Tensor]:
    """Preferences of any kind, in circles or not, and a reference policy."""
    make = torch.Generator().manual_seed(seed)
    p = torch.rand(responses, responses, generator=make, dtype=torch.float64)
    reference = torch.rand(responses, generator=make, dtype=torch.float64) + 0.5
    return (1 + p - p.T) / 2, reference / reference.sum()


def answer(preferences: Tensor, reference: Tensor, opponent: Tensor, tau: float) -> Tensor:
    """The best policy against an opponent under the regularisation: π_ref exp(P(y ≻ opponent)/τ), normalised."""
    return (reference.log() + preferences @ opponent / tau).softmax(-1)


def nash(preferences: Tensor, reference: Tensor, tau: float) -> Tensor:
    """The policy that is the best answer to itself, by steps small enough to get there."""
    policy = reference
    for _ in range(2_000):
        policy = (0.98 * policy.log() + 0.02 * answer(preferences, reference, policy, tau).log()).softmax(-1)
    return policy


def divergence(one: Tensor, other: Tensor) -> float:
    """KL(one ‖ other) in nats."""
    return float((one * (one.log() - other.log())).sum())


def gap(preferences: Tensor, reference: Tensor, policy: Tensor, tau: float) -> float:
    """What the best answer gains over the policy in the game P(π ≻ π') − τ KL(π ‖ ref) + τ KL(π' ‖ ref), for both players
    together; with τ = 0 in the game P(π ≻ π')."""
    if tau == 0:
        return 2 * (float((preferences @ policy).max()) - 0.5)
    best = answer(preferences, reference, policy, tau)
    gain = float(best @ preferences @ policy) - 0.5
    return 2 * (gain - tau * divergence(best, reference) + tau * divergence(policy, reference))


# Losses, exactly -----------------------------------------------------------------------------------


def expected(
    objective: Objective, logits: Tensor, anchors: Mapping[str, Tensor], law: Tensor, preferences: Tensor
) -> Tensor:
    """The objective's mean over pairs of responses drawn from `law`, one of the two chosen by a judge who prefers as
    `preferences` says; where the objective reads how surely, it is told instead."""
    n = len(logits)
    first, second = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
    scored = lambda y: Scored(  # noqa: E731
        logits.log_softmax(-1)[y, None], torch.ones(len(y), 1) > 0, None, {k: x.log()[y, None] for k, x in anchors.items()}
    )
    values = objective(Pairs(scored(first), scored(second), strength=preferences.flatten()))
    drawn = law[:, None] * law
    weight = drawn if "strength" in objective.needs else 2 * drawn * preferences  # both orders of a pair are drawn
    return weight.flatten() @ values


def descended(
    objective: Objective, law: Callable[[Tensor], Tensor], preferences: Tensor, reference: Tensor, start: Tensor
) -> Tensor:
    """The policy after gradient descent with pairs drawn from law(policy), through which no gradient flows."""
    logits = start.log()
    for _ in range(STEPS):
        logits = logits.detach().requires_grad_()
        loss = expected(objective, logits, {"ref": reference}, law(logits.detach().softmax(-1)), preferences)
        logits = logits - RATE * torch.autograd.grad(loss, logits)[0]
    return logits.detach().softmax(-1)


def fitted(objective: Objective, start: Tensor, anchors: Mapping[str, Tensor], law: Tensor, preferences: Tensor) -> Tensor:
    """The policy where the loss is least. It is a square in the logits, so that one Newton step from anywhere is all it
    takes; along the direction that moves all logits alike it is flat, which the pseudo-inverse leaves out."""
    logits = start.log().requires_grad_()
    loss = expected(objective, logits, anchors, law, preferences)
    (slope,) = torch.autograd.grad(loss, logits, create_graph=True)
    curve = torch.stack([torch.autograd.grad(x, logits, retain_graph=True)[0] for x in slope])
    return (logits - torch.linalg.pinv(curve, hermitian=True) @ slope).detach().softmax(-1)


def iterated(objective: Objective, preferences: Tensor, reference: Tensor, rounds: int, past: int = 1) -> list[Tensor]:
    """The policies of so many rounds: each draws its pairs from the last policy and fits the loss to them."""
    policies = [reference]
    for _ in range(rounds):
        history = {f"history/{k}": x for k, x in enumerate(policies[: -past - 1 : -1])}
        anchors = {"ref": reference, "prev": policies[-1], **history}
        policies.append(fitted(objective, policies[-1], anchors, policies[-1], preferences))
    return policies


def optimistic(eta: float, preferences: Tensor, reference: Tensor, rounds: int) -> list[Tensor]:
    """ONPO, with pairs of the last policy: from the auxiliary policy to the next one, and from there to the next policy."""
    policies, auxiliary = [reference], reference
    for _ in range(rounds):
        step = lambda start, law: fitted(ONPO(eta=eta), start, {"prev": start}, law, preferences)  # noqa: E731
        auxiliary = step(auxiliary, policies[-1])
        policies.append(step(auxiliary, policies[-1]))
    return policies


# The claims ----------------------------------------------------------------------------------------


def rest(seeds: Sequence[int] = SEEDS) -> Study:
    """How far gradient descent from a random start ends from the Nash policy, and from what the average of a fixed set of
    pairs asks for (Borda), in nats."""

    def ended(objective: Objective, law: Callable[[Tensor, Tensor], Tensor]) -> Arm:
        def run(seed: int) -> dict[str, float]:
            preferences, reference = opinions(seed)
            start = torch.rand(len(reference), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
            alike = torch.full_like(reference, 1 / len(reference))
            end = descended(objective, lambda policy: law(policy, reference), preferences, reference, start / start.sum())
            equilibrium, borda = nash(preferences, reference, TAU), answer(preferences, reference, alike, TAU)
            return {"KL to Nash": divergence(end, equilibrium), "KL to Borda": divergence(end, borda)}

        return run

    mixed = lambda policy, reference: (policy.log() * 7 / 8 + reference.log() / 8).softmax(-1)  # noqa: E731
    itself, fixed = (lambda policy, reference: policy), (lambda policy, reference: torch.full_like(policy, 1 / len(policy)))
    arms = {
        "IPO, fixed set": ended(NashIPO(tau=TAU), fixed),
        "IPO, its own": ended(NashIPO(tau=TAU), itself),
        "IPO-MD, 1/8 reference": ended(NashIPO(tau=TAU), mixed),
        "DPO, its own": ended(DPO(beta=TAU), itself),
    }
    return study(arms, seeds)


def regularised(seeds: Sequence[int] = SEEDS, rounds: int = 60) -> Study:
    """The gap of the last policy after so many mirror steps, in the game regularised by each τ; the smaller τ, the longer
    the step. IPO held by the reference alone answers the last policy in full."""

    def last(make: Callable[[float], Objective], past: int = 1) -> Arm:
        def run(seed: int) -> dict[str, float]:
            preferences, reference = game(seed)
            ends = {tau: iterated(make(tau), preferences, reference, rounds, past)[-1] for tau in (0.1, 0.07, 0.05)}
            return {f"gap, τ = {tau:g}": gap(preferences, reference, end, tau) for tau, end in ends.items()}

        return run

    arms = {
        "INPO": last(lambda tau: INPO(eta=3 * tau, ratio=1 / 3)),
        "IPO to the reference": last(lambda tau: IPO(tau=tau, average=False)),
        "MNPO, 2 past": last(lambda tau: MNPO(eta=3 * tau, ratio=1 / 3), 2),
        "MNPO, 4 past": last(lambda tau: MNPO(eta=3 * tau, ratio=1 / 3), 4),
    }
    return study(arms, seeds)


def plain(seeds: Sequence[int] = SEEDS, rounds: int = 100) -> Study:
    """The gap of the last policy in the game without regularisation, with steps of one length (η = 2)."""
    run = lambda walk: lambda seed: {"gap": gap(*(g := game(seed)), walk(*g)[-1], 0)}  # noqa: E731
    arms = {
        "start": run(lambda preferences, reference: [reference]),
        "mirror steps": run(lambda *g: iterated(INPO(eta=1 / 2, ratio=0), *g, rounds)),
        "ONPO": run(lambda *g: optimistic(2.0, *g, rounds)),
    }
    return study(arms, seeds)


def main() -> None:
    for part in (rest, regularised, plain):
        print(part.__doc__.split(".")[0].strip() + ".", part(), "", sep="\n")


if __name__ == "__main__":
    main()

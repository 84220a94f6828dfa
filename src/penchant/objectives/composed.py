"""Methods that are sums of others, as they are written here. They are no classes: a sum says all there is to say, and its
weights are its hyper-parameters."""

from __future__ import annotations

from typing import NamedTuple


class Composed(NamedTuple):
    """A method that is a sum."""

    name: str
    """What the field calls it."""
    written: str
    """How it is written in Python, in a recipe and in the shell, at its paper's settings."""
    source: str


COMPOSED = (
    Composed("CPO, whole", "CPO(beta=0.1) + NLL(reduction='sum')", "Xu et al. 2024, arXiv 2401.08417"),
    Composed("IRPO", "DPO(beta=0.1) + NLL()", "iterative reasoning PO, Pang et al. 2024, arXiv 2404.19733"),
    Composed("ORPO, whole", "NLL() + 0.1 * ORPO()", "Hong et al. 2024, arXiv 2403.07691, eq. 6"),
    Composed("RPO", "DPO(beta=0.01) + 5e-05 * NLL(reduction='sum')", "regularised PO, w = ηβ, Liu et al. 2024, arXiv 2405.16436"),
    Composed("RPO, average", "DPO(beta=0.5) + 0.2 * NLL()", "the same, its appendix F: the mean over the chosen's tokens"),
    Composed("SLiC, whole", "SLiC(delta=1.0) + 0.1 * NLL(reduction='sum')", "Zhao et al. 2023, arXiv 2305.10425; numbers of HALOs"),
    Composed("TRPA, whole", "TRPA() + 0.001 * TrustRegion()", "Su et al. 2025, arXiv 2504.04524"),
)  # fmt: skip


def composed(name: str) -> list[Composed]:
    """The sums that go by this name, in any case; the word before a comma is enough."""
    said = name.casefold()
    return [one for one in COMPOSED if said in (one.name.casefold(), one.name.partition(",")[0].casefold())]

"""The sizing table of docs/scale.md, worked out anew from the formulas it gives. Nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from penchant.domains.text.logits import PRODUCT

DOC = Path(__file__).parents[1] / "docs" / "scale.md"
GIB = 2**30


@dataclass(frozen=True)
class Model:
    """A decoder of the Llama family; embedding and head are not tied."""

    layers: int
    hidden: int
    keys: int
    """Width of the keys, and of the values."""
    inner: int
    vocabulary: int

    @property
    def layer(self) -> int:
        """Parameters of a layer: queries and output, keys and values, three matrices of the MLP, two norms."""
        return 2 * self.hidden**2 + 2 * self.hidden * self.keys + 3 * self.hidden * self.inner + 2 * self.hidden

    @property
    def ends(self) -> int:
        """Parameters of embedding, head and last norm."""
        return 2 * self.vocabulary * self.hidden + self.hidden

    @property
    def all(self) -> int:
        return self.layers * self.layer + self.ends

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA on every matrix of every layer: rank × (in + out)."""
        h, k, f = self.hidden, self.keys, self.inner
        return self.layers * rank * (2 * (h + h) + 2 * (h + k) + 3 * (h + f))

    def token(self, bf16: bool) -> int:
        """Bytes that a token's activations take in all layers, from forward to backward."""
        h, k, f = self.hidden, self.keys, self.inner
        return self.layers * (24 * h + 4 * k + 8 * f if bf16 else 24 * h + 8 * k + 16 * f)


MODELS = {
    "7B": Model(layers=32, hidden=4096, keys=4096, inner=11008, vocabulary=32000),
    "70B": Model(layers=80, hidden=8192, keys=1024, inner=28672, vocabulary=128256),
}
CASES = [
    ("7B", "full", "bf16", 8, 2048),
    ("7B", "full", "bf16", 16, 4096),
    ("7B", "full", "fp32", 8, 2048),
    ("7B", "LoRA 16", "bf16", 8, 4096),
    ("70B", "full", "bf16", 64, 1024),
    ("70B", "full", "fp32", 16, 512),
    ("70B", "full", "fp32", 64, 512),
    ("70B", "LoRA 16", "fp32", 8, 256),
    ("70B", "LoRA 16", "fp32", 16, 512),
]


def row(name: str, how: str, precision: str, gpus: int, tokens: int) -> str:
    """A line of the table, in GiB on each GPU."""
    model, bf16, lora = MODELS[name], precision == "bf16", how != "full"
    trained = model.adapter(16) if lora else model.all
    shards = (4 * model.all + (4 * trained if lora else 0) + 12 * trained) / gpus
    whole = 4 * ((1 if lora else 2) * model.ends + (2 if lora else 3) * model.layer)
    copies = 2 * model.layers * model.layer if bf16 else 0
    activations = tokens * model.token(bf16)
    chunk = 3 * 4 * PRODUCT
    parts = [shards, whole, copies, activations]
    total = (sum(parts) + chunk) / GIB
    numbers = " | ".join(f"{x / GIB:.1f}" for x in parts)
    return f"| {name} | {how} | {precision} | {gpus} | {tokens:,} | {numbers} | {total:.0f} | {'yes' if total < 72 else 'no'} |"


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_the_sizing_table_is_what_its_formulas_give(case: tuple[str, str, str, int, int]):
    assert row(*case) in DOC.read_text(encoding="utf-8")


def test_the_models_of_the_table_have_the_sizes_they_are_known_by():
    assert [f"{model.all / 1e9:.2f}" for model in MODELS.values()] == ["6.74", "70.55"]
    text = DOC.read_text(encoding="utf-8")
    assert text.count("\n| 7B |") + text.count("\n| 70B |") == len(CASES)

"""A domain whose log-probs hang on drawn noise: policy, reference and both responses of a pair meet the same noise, however a step
is cut, and again after a kill. Pictures are such a domain; here it is a table of numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from penchant.domains.base import Encoded, Want
from penchant.engine.batching import strangers
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, noise, train
from penchant.engine.sources import Anchors, FromFile, Scorer
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.objectives import DPO, INPO, IPO, KTO, BetaDPO, Consensus, Labelled, Objective, Pairs, SimPO
from penchant.objectives.base import zeros
from penchant.objectives.scored import Scored, masks
from penchant.running.measure import Measure
from test_engine import FP32, make_job
from toy import PLAIN, SIZE, Numbers, Table, rows


class Noisy(Numbers):
    """log π(step | context) = log_softmax(table · noise)[step], with noise by (seed, row, draw); the start is its reference."""

    name, noisy = "noisy numbers", True

    def __init__(self, start: nn.Module) -> None:
        self.start = start

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = PLAIN) -> Scored:
        seed = want.seed
        assert seed is not None
        mask = masks(encoded.lengths)
        tokens = torch.zeros(mask.shape, dtype=torch.long)
        for i, (_, y) in enumerate(encoded.flat):
            tokens[i, : len(y)] = y
        contexts = torch.stack([c[0] for c, _ in encoded.flat])

        def read(model: nn.Module) -> Tensor:
            out = torch.zeros(mask.shape)
            for draw in range(want.draws):
                drawn = [
                    torch.randn(SIZE, generator=torch.Generator().manual_seed(seed * 1000 + number * 10 + draw))
                    for number in encoded.response_numbers
                ]
                z = (model(contexts, None) * torch.stack(drawn)).log_softmax(-1)
                out = out + z.gather(-1, tokens) / want.draws
            return torch.where(mask, out, 0.0)

        with torch.no_grad():
            values = {"ref": read(self.start)} if "ref" in want.values else {}
        return Scored(read(policy), mask, values=values)


def gradient(objective: Objective, tokens: int, seed: int = 3) -> tuple[Tensor, float]:
    encoded = rows(8, Labelled if isinstance(objective, KTO) else Pairs)
    policy = Table(seed=1)
    domain = Noisy(Table(seed=9))
    mixed = domain.recombine(encoded, range(8), strangers([c.numpy().tobytes() for c in encoded.contexts], 0))
    material = Material(encoded, {}, mixed if objective.needs.mismatched else None, {})
    optimiser = torch.optim.SGD(policy.parameters(), lr=1.0)
    step = Step(policy, domain, objective, optimiser, Accelerator(cpu=True), FP32, tokens=tokens, clip=1e9)
    before = policy.table.detach().clone()
    out = step(material, range(8), zeros(objective, {"annotator": 3}), seed)
    return before - policy.table.detach(), out.loss


@pytest.mark.parametrize("objective", [DPO(), KTO(), SimPO(), Consensus(IPO()), BetaDPO()], ids=repr)
def test_a_step_in_noise_is_the_same_however_it_is_cut(objective: Objective):
    whole, loss = gradient(objective, 10_000)
    assert float(whole.abs().max()) > 1e-4
    for tokens in (60, 24, 1):
        part, other = gradient(objective, tokens)
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-6)
        assert other == pytest.approx(loss, abs=1e-6)
    again, _ = gradient(objective, 10_000, seed=4)
    assert float((again - whole).abs().max()) > 1e-4, "another step meets other noise"


def job(tmp_path: Path, objective: Objective) -> Job:
    encoded = rows(20)
    made = make_job(Table(), SimPO(), encoded, tmp_path)  # an objective that stores nothing
    domain = Noisy(Table())
    scorer = Scorer(domain, made.bare, FP32, torch.device("cpu"), made.settings.tokens, None, Table)
    anchors = Anchors(scorer, objective, made.settings, Accelerator(cpu=True), tmp_path / "cache", lambda *_: None)
    made.domain, made.objective, made.source = domain, objective, FromFile(encoded, anchors)
    return made


def test_a_run_in_noise_starts_at_its_reference_and_is_bit_equal_after_a_kill(tmp_path: Path):
    plain = job(tmp_path / "plain", DPO())
    assert train(plain) is None
    start, *lines = plain.folder.history()
    assert start["kind"] == "start" and start["drift"] == 0.0
    assert lines[0]["loss"] == pytest.approx(0.6931472, abs=1e-6) and lines[-1]["loss"] < lines[0]["loss"]
    killed = job(tmp_path / "killed", DPO())

    def die(position, *_: object) -> None:
        if position.step == 5:
            raise MemoryError("killed")

    killed.report = die
    with pytest.raises(MemoryError):
        train(killed)
    again = job(tmp_path / "killed", DPO())
    again.folder = RunFolder(killed.folder.path)
    assert train(again) is None
    assert torch.equal(again.bare.table, plain.bare.table)


def test_no_two_steps_of_a_run_share_their_noise():
    assert len({noise(seed, step) for seed in range(3) for step in range(100)}) == 300


def test_held_out_pairs_are_measured_in_the_same_noise_before_and_after(tmp_path: Path):
    run = job(tmp_path, DPO())
    scorer = Scorer(run.domain, run.bare, FP32, torch.device("cpu"), 4096, None, Table)
    anchors = Anchors(scorer, DPO(), run.settings, Accelerator(cpu=True), tmp_path / "cache", lambda *_: None)
    measure = Measure(anchors, DPO(), run.settings, None)
    held = rows(12, seed=5)
    before = measure.pairs(held, "held-out pairs")
    assert before is not None and before.reward_chosen == before.reward_rejected == [0.0] * 12
    assert before == measure.pairs(held, "held-out pairs")
    assert train(run) is None
    scorer.moved = True
    after = measure.pairs(held, "held-out pairs")
    assert after is not None and after.reward_chosen != before.reward_chosen
    assert after == measure.pairs(held, "held-out pairs")
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").iterdir()), "nothing of it is kept"


def test_anchors_beside_the_reference_are_refused(tmp_path: Path):
    with pytest.raises(Refusal, match="hang on the noise of each step"):
        job(tmp_path, INPO())

"""What a policy is held against: the start of the run, of the phase, and saved models, each by name, through rounds, kills
and coupled steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from penchant.domains.base import Encoded
from penchant.domains.text.models import LoRA, load
from penchant.domains.text.paths import ScoringPath, probe
from penchant.domains.text.policy import TextPolicy, reference_of
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, FromFile, Kept, Past, Scorer
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.feedback.records import Row
from penchant.files import cache_folder, read_json
from penchant.objectives import DPO, INPO, TDPO, Objective, Paired, TokenWeighted
from penchant.objectives.base import Needs, zeros
from penchant.run import align
from test_align import run_in
from tiny import tiny_model
from toy import Numbers, Table, rows

FP32 = Precision("fp32", "highest", {})
HISTORY = Needs(anchors=frozenset({"ref", "prev", "history"}))


@dataclass(frozen=True)
class HeldByAll(Paired):
    """Reads every anchor."""

    needs = HISTORY

    def reward(self, y: Any) -> Any:
        return y.against("ref") + y.against("prev") + sum(y.against(name) for name in y.family("history"))

    def loss(self, w: Any, l: Any) -> Any:
        return (w - l - 1) ** 2


@dataclass(frozen=True)
class Coupled(HeldByAll):
    """Reads every anchor, and couples the step."""

    couples = True

    def loss(self, w: Any, l: Any) -> Any:
        return (w - l - (w - l).mean()) ** 2 + (w - l).mean()


def anchors(objective: Objective, policy: Table, folder: Path, history: tuple[Past, ...] = ()) -> Anchors:
    scorer = Scorer(Numbers(), policy, FP32, torch.device("cpu"), 100, None, Table)
    quiet = lambda title, done, total: None  # noqa: E731
    return Anchors(scorer, objective, Settings(tokens=100), Accelerator(cpu=True), folder / "ref", quiet, history)


def past(seed: int, folder: Path, opened: list[int]) -> Past:
    def load() -> nn.Module:
        opened.append(seed)
        return Table(seed)

    return Past(f"table {seed}", folder / f"past-{seed}", load)


def said(seed: int, encoded: Encoded) -> torch.Tensor:
    return Numbers().score(Table(seed), encoded).logp.detach()


def test_a_run_on_a_file_is_held_against_its_start_and_saved_models_newest_first(tmp_path: Path):
    encoded, opened = rows(6), []
    made = anchors(HeldByAll(), Table(), tmp_path, (past(5, tmp_path, opened), past(8, tmp_path, opened)))
    material = FromFile(encoded, made).material(0, 0)
    assert sorted(material.anchors) == ["history/0", "history/1", "history/2", "prev", "ref"]
    for name, seed in {"ref": 0, "prev": 0, "history/0": 0, "history/1": 5, "history/2": 8}.items():
        torch.testing.assert_close(material.anchors[name](range(6)), said(seed, encoded))
    assert opened == [5, 8], "each is loaded once"
    again = anchors(HeldByAll(), Table(), tmp_path, (past(5, tmp_path, opened), past(8, tmp_path, opened)))
    FromFile(encoded, again)
    assert opened == [5, 8], "what is stored needs no model"


def test_only_what_is_needed_is_provided_and_what_cannot_be_is_refused_by_name(tmp_path: Path):
    assert list(FromFile(rows(4), anchors(DPO(), Table(), tmp_path)).material(0, 0).anchors) == ["ref"]

    @dataclass(frozen=True)
    class Taught(HeldByAll):
        needs = Needs(anchors=frozenset({"teacher"}))

    with pytest.raises(Refusal, match=r"held against 'teacher', but a run provides history, prev, ref"):
        FromFile(rows(4), anchors(Taught(), Table(), tmp_path))


def test_the_start_of_a_phase_is_scored_before_it_trains_and_only_read_after(tmp_path: Path):
    encoded, policy = rows(6), Table(3)
    made = anchors(HeldByAll(), policy, tmp_path)
    made.scorer.moved = True
    kept = Kept(tmp_path / "prev-0002", begun=False)
    first = made.material(encoded, "round 2", kept=kept)
    with torch.no_grad():
        policy.table.add_(1.0 + torch.arange(7.0))
    later = made.material(encoded, "round 2", kept=replace(kept, begun=True))
    for material in (first, later):
        torch.testing.assert_close(material.anchors["prev"](range(6)), said(3, encoded))
        torch.testing.assert_close(material.anchors["history/0"](range(6)), said(3, encoded))
        torch.testing.assert_close(material.anchors["ref"](range(6)), said(0, encoded))
    for part in kept.folder.iterdir():
        part.unlink()
    with pytest.raises(Refusal, match=r"lacks 6 of 6 rows: what the policy said as round 2 began is gone"):
        made.material(encoded, "round 2", kept=replace(kept, begun=True))


@pytest.mark.parametrize(
    "objective", [HeldByAll(), Coupled(), TokenWeighted(HeldByAll()), TokenWeighted(Coupled())], ids=repr
)
def test_anchors_and_weights_reach_every_micro_batch_and_every_coupled_step(objective: Objective):
    encoded = rows(8)
    make = torch.Generator().manual_seed(5)
    weights = tuple(tuple(0.5 + torch.rand(len(y), generator=make) for y in ys) for ys in encoded.responses)
    encoded = replace(encoded, weights=weights)

    def one_step(budget: int, encoded: Encoded = encoded) -> torch.Tensor:
        policy = Table()
        held = {"ref": 9, "prev": 7, "history/0": 7, "history/1": 5}
        made = {name: lambda some, seed=seed: said(seed, encoded.select(some)) for name, seed in held.items()}
        optimiser = torch.optim.SGD(policy.parameters(), lr=0.0)
        step = Step(policy, Numbers(), objective, optimiser, Accelerator(cpu=True), FP32, tokens=budget, clip=1e9)
        step(Material(encoded, made), list(range(8)), zeros(objective))
        assert policy.table.grad is not None
        return policy.table.grad.clone()

    whole = one_step(10_000)
    assert whole.abs().max() > 1e-3
    for budget in (48, 24, 1):
        torch.testing.assert_close(one_step(budget), whole, rtol=1e-5, atol=1e-6)
    unweighted = one_step(10_000, replace(encoded, weights=None))
    assert torch.equal(unweighted, whole) != isinstance(objective, TokenWeighted)


def test_an_objective_that_reads_weights_refuses_data_without(tmp_path: Path):
    with pytest.raises(Refusal, match=r"reads how much each token counts, but no row says so: give `chosen_weights`"):
        FromFile(rows(4), anchors(TokenWeighted(DPO()), Table(), tmp_path))


SHORT = {"steps": 2, "epochs": 1, "sample_prompts": 0}


def test_a_saved_model_is_history_and_another_history_is_another_run(tmp_path: Path, tiny_folder: Path):
    old = run_in(tmp_path / "old", tiny_folder, **SHORT).folder / "model"
    run = run_in(tmp_path / "new", tiny_folder, "MNPO(eta=0.1)", history=(str(old),), **SHORT)
    told = read_json(run.folder / "run.json")
    assert len(told["identity"]["history"]) == 1
    assert told["choices"]["history"] == {str(old): told["choices"]["scoring"]}
    alone = run_in(tmp_path / "alone", tiny_folder, "MNPO(eta=0.1)", **SHORT)
    first = lambda run: next(x["loss"] for x in run.history if x["kind"] == "step")  # noqa: E731
    assert first(run) != first(alone) == pytest.approx(25.0, abs=1e-3), "(1/2η)² where all anchors are the policy"
    other = run_in(tmp_path / "other", tiny_folder, seed=4, **SHORT).folder / "model"
    with pytest.raises(Refusal, match=r"holds a different run.*history"):
        run_in(tmp_path / "new", tiny_folder, "MNPO(eta=0.1)", history=(str(other),), **SHORT)
    with pytest.raises(Refusal, match=r"history=.* is not read by DPO"):
        run_in(tmp_path / "dpo", tiny_folder, history=(str(old),), **SHORT)


def test_a_saved_model_reads_as_the_policy_does_or_as_it_was_probed_once(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    probed: list[int] = []

    def counted(policy: TextPolicy) -> ScoringPath:
        probed.append(policy.plain_model.config.hidden_size)
        return probe(policy)

    monkeypatch.setattr("penchant.domains.text.policy.probe", counted)
    like, unlike = tiny_model(tmp_path / "like", seed=5), tiny_model(tmp_path / "unlike", seed=6, hidden_size=48)
    how: Any = {"history": (str(like), str(unlike)), **SHORT}
    run_in(tmp_path / "run", tiny_folder, "MNPO(eta=0.1)", **how)
    assert probed == [32, 48], "the policy, and the one that is built otherwise"
    (tmp_path / "run" / "evidence.json").unlink()
    for cached in cache_folder().glob("references/*/*"):
        cached.unlink()
    run_in(tmp_path / "run", tiny_folder, "MNPO(eta=0.1)", **how)
    assert probed == [32, 48], "a run that goes on follows what was chosen"


@pytest.mark.parametrize("lora", [0, 4])
def test_the_divergence_of_whole_distributions_trains_and_is_measured(lora: int, tmp_path: Path, tiny_folder: Path):
    run = run_in(tmp_path / "x", tiny_folder, TDPO(beta=0.5), **{**SHORT, "steps": 6}, **({"lora": lora} if lora else {}))
    losses = [x["loss"] for x in run.history if x["kind"] == "step"]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[-1] < losses[0]
    before, after = run.evidence.pairs_before, run.evidence.pairs_after
    assert before is not None and after is not None
    assert not any(before.reward_chosen) and any(after.reward_chosen)


def test_rounds_hold_the_policy_against_the_start_of_each(tmp_path: Path, tiny_folder: Path):
    from penchant.rewards.function import FunctionJudge

    judge = FunctionJudge(lambda prompt, response: response.count("a") - 0.1 * len(response), name="letters")
    settings: dict[str, Any] = {
        "rounds": 2,
        "samples": 3,
        "limit": 4,
        "batch": 4,
        "tokens": 64,
        "threads": 1,
        "quiet": True,
    }
    settings |= {"precision": "fp32", "sample_prompts": 0, "held_out": 0.25, "learning_rate": 1e-2, "prompts_per_round": 8}
    data = [{"prompt": f"what is it {i}", "chosen": "a cat", "rejected": "no"} for i in range(16)]
    run = align(tiny_folder, data, INPO(), output=tmp_path / "x", judge=judge, **settings)
    assert not (run.folder / "rounds" / "prev-0001").exists(), "the first round starts where the run does"
    assert list((run.folder / "rounds" / "prev-0002").glob("shard-*.safetensors"))


@pytest.mark.parametrize("lora", [0, 4])
def test_a_reference_that_every_step_reads_is_not_scored_before_and_gives_the_same_step(
    lora: int, tmp_path: Path, tiny_folder: Path
):
    torch.manual_seed(0)
    loaded = load(tiny_folder, lora=LoRA(lora) if lora else None)
    policy, domain = loaded.policy, loaded.domain
    if not lora:
        policy.hold(load(tiny_folder).policy)
    encoded = domain.encode([Row(i, "pairs", "is it" + " a" * i, ("yes" * i, "no thank you")) for i in range(1, 6)])
    scorer = Scorer(domain, policy, FP32, torch.device("cpu"), 60, reference_of(policy), lambda: policy)
    made = Anchors(scorer, TDPO(), Settings(), Accelerator(cpu=True), tmp_path, lambda *_: None)
    material, stored = made.material(encoded, "rows"), made.stored(encoded, "rows")
    assert not material.anchors and isinstance(made.anchors(encoded, "rows")["ref"], type(stored))
    with torch.no_grad():
        for i, (_, p) in enumerate(policy.named_trainable()):
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))

    def stepped(material: Material) -> tuple[float, torch.Tensor]:
        optimiser = torch.optim.SGD([p for _, p in policy.named_trainable()], lr=0.0)
        step = Step(policy, domain, TDPO(), optimiser, Accelerator(cpu=True), FP32, tokens=60, clip=1e9)
        loss = step(material, range(5), zeros(TDPO())).loss
        return loss, torch.cat([p.grad.flatten() for _, p in policy.named_trainable() if p.grad is not None])

    (live, ours), (cached, theirs) = stepped(material), stepped(replace(material, anchors={"ref": stored}))
    assert live == pytest.approx(cached, abs=1e-6) and abs(live - 0.6931) > 1e-4
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5

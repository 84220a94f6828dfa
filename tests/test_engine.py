"""The loop's promises, on a policy that is a table of numbers: nothing here needs a language model."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from penchant.domains.base import Cost, Encoded
from penchant.engine import checkpoint
from penchant.engine.batching import order, share, steps, strangers
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, schedule, train
from penchant.engine.precision import Precision, choose
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, FromFile, Scorer
from penchant.engine.step import BrokenStep, Material, Step
from penchant.errors import Refusal, StoppedRun
from penchant.objectives import (
    BCO,
    DPO,
    IPO,
    KTO,
    NLL,
    ORPO,
    AOTUnpaired,
    BetaDPO,
    Consensus,
    Labelled,
    Objective,
    Paired,
    Pairs,
    RelativePO,
    SimPO,
)
from penchant.objectives.base import kinds_of, zeros
from penchant.references.store import Store, fill
from toy import Numbers, Table, rows

FP32 = Precision("fp32", "highest", {})


def material(encoded: Encoded, objective: Objective, seed: int = 0) -> Material:
    """The rows with the log-probs of another table as reference."""
    domain, other = Numbers(), Table(seed=9)

    def anchor(of: Encoded):
        return lambda picked: domain.score(other, of.select(picked)).logp.detach()

    if not objective.needs.mismatched:
        return Material(encoded, {name: anchor(encoded) for name in objective.needs.anchors})
    mixed = domain.recombine(encoded, range(len(encoded)), strangers([c.numpy().tobytes() for c in encoded.contexts], seed))
    return Material(encoded, {"ref": anchor(encoded)}, mixed, {"ref": anchor(mixed)})


def one_step(objective: Objective, encoded: Encoded, budget: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], float]:
    """The gradient, the state and the loss of one step with micro-batches of that budget."""
    policy = Table()
    optimiser = torch.optim.SGD(policy.parameters(), lr=0.0)
    step = Step(policy, Numbers(), objective, optimiser, Accelerator(cpu=True), FP32, tokens=budget, clip=1e9)
    outcome = step(material(encoded, objective), list(range(len(encoded))), zeros(objective, {"annotator": 3}))
    assert policy.table.grad is not None
    return policy.table.grad.clone(), outcome.state, outcome.loss


@dataclass(frozen=True)
class Sorted(Paired):
    """A loss that couples the step: margins are compared with the sorted margins of all others."""

    needs = DPO.needs
    couples = True

    def reward(self, y):
        return y.ratio

    def loss(self, w, l):
        margin = w - l
        return (margin - margin.sort().values.flip(0)) ** 2 + margin.mean() ** 2


@pytest.mark.parametrize(
    "objective",
    [
        DPO(),
        SimPO(),
        ORPO(),
        NLL(reduction="token"),
        DPO() + 0.3 * NLL(reduction="token"),
        KTO(),
        Sorted(),
        Sorted() + DPO(),
        Consensus(DPO()) + 0.1 * NLL(),
        BCO(),
        AOTUnpaired(),
        RelativePO(),
        BetaDPO(filter=0.3) + 0.1 * NLL(),
    ],
    ids=repr,
)
def test_accumulation_invariance(objective: Objective):
    encoded = rows(8, kinds_of(objective)[-1])
    whole, state, loss = one_step(objective, encoded, budget=10_000)
    assert whole.abs().max() > 1e-3
    for budget in (48, 24, 1):
        parts, other, value = one_step(objective, encoded, budget)
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
        assert value == pytest.approx(loss, rel=1e-5)
        for name in state:
            torch.testing.assert_close(other[name], state[name])


def test_the_step_equals_the_plain_mean_over_pairs():
    encoded, objective = rows(8), DPO()
    found, _, loss = one_step(objective, encoded, budget=24)
    policy, made = Table(), material(encoded, objective)
    y = Numbers().score(policy, encoded)
    values = objective(encoded.batch(type(y)(y.logp, y.mask, made.anchors["ref"](range(8)))))
    values.mean().backward()
    assert loss == pytest.approx(values.mean().item(), rel=1e-6)
    torch.testing.assert_close(found, policy.table.grad)


@pytest.mark.parametrize("objective", [DPO(), DPO() + NLL(reduction="token")], ids=repr)
def test_rows_that_are_all_masked_have_loss_0_and_no_gradient(objective: Objective):
    encoded = rows(3)
    nothing = torch.zeros(0, dtype=torch.long)
    gradient, _, loss = one_step(objective, replace(encoded, responses=((nothing, nothing),) * 3), budget=1)
    assert loss == 0.0 and torch.equal(gradient, torch.zeros_like(gradient))


def test_a_row_longer_than_the_budget_gets_its_own_micro_batch():
    groups = Cost([5, 100, 7, 3], padded=True).micro_batches(12)
    assert sorted(i for g in groups for i in g) == [0, 1, 2, 3]
    assert [1] in groups


def test_every_rank_runs_the_same_number_of_micro_batches():
    groups = [[0], [1], [2], [3], [4]]
    shares = [share(groups, rank, 2) for rank in range(2)]
    assert [len(s) for s in shares] == [3, 3]
    assert shares[1][-1] == []


def test_an_epoch_is_a_permutation_and_nothing_is_dropped():
    plan = steps(10, 4, 2, seed=3)
    assert [len(s) for s in plan] == [4, 4, 2, 4, 4, 2]
    assert sorted(i for s in plan[:3] for i in s) == list(range(10))
    assert order(10, 3, 0) != order(10, 3, 1) != order(10, 4, 1)
    assert len(steps(10, 4, 1, 0, most=7)) == 7


def test_kto_mismatch_never_matches():
    for contexts in (["a", "b"], ["a", "a", "b"], ["a"] * 9 + ["b"], list("abcabcaab"), [str(i) for i in range(50)]):
        names = [c.encode() for c in contexts]
        other = strangers(names, 0)
        assert all(names[i] != names[j] for i, j in enumerate(other))
    assert strangers([b"a", b"a"], 0) == []


def test_schedules_rise_and_fall():
    for name in ("linear", "cosine", "constant"):
        settings = Settings(warmup=0.2, schedule=name)
        rates = [schedule(settings, 0, k, 10, 1) for k in range(10)]
        assert rates[0] == pytest.approx(0.5)
        assert rates[1] == pytest.approx(1.0)
        assert all(0 < r <= 1 for r in rates)
        assert rates[-1] == pytest.approx({"linear": 0.125, "cosine": 0.0380602, "constant": 1.0}[name], rel=1e-4)
    two = [schedule(Settings(warmup=0.0), phase, k, 5, 2) for phase in range(2) for k in range(5)]
    assert two == [schedule(Settings(warmup=0.0), 0, k, 10, 1) for k in range(10)]


def test_precision_is_measured_and_kept():
    found = choose("auto", torch.device("cpu"))
    assert set(found.measured) >= {"highest_seconds", "bf16_seconds", "highest_error", "medium_error"}
    fast = found.measured[f"{found.matmul}_seconds"] >= 1.5 * found.measured["bf16_seconds"]
    assert found.name == ("bf16" if fast else "fp32")
    assert choose("auto", torch.device("cpu")) == found
    assert Precision(**json.loads(json.dumps(found.to_json()))) == found
    assert choose("fp32", torch.device("cpu")).name == "fp32"


def test_a_non_finite_loss_stops_before_any_weight_changes_and_names_the_rows(tmp_path: Path):
    encoded, objective = rows(6), SimPO()
    policy = Table()
    with torch.no_grad():
        policy.table[int(encoded.contexts[4][0])] = float("nan")
    before = policy.table.detach().clone()
    bad = {i + 1 for i, c in enumerate(encoded.contexts) if bool(before[int(c[0])].isnan().any())}
    job = make_job(policy, objective, encoded, tmp_path, tokens=1)
    with pytest.raises(BrokenStep, match="not finite") as error:
        train(job)
    assert torch.equal(policy.table.isnan(), before.isnan())
    assert {encoded.numbers[i] for i in error.value.rows} == bad
    saved = json.loads((tmp_path / "run" / "stopped" / "rows.json").read_text())
    assert set(saved["numbers"]) == bad


def make_job(
    policy: Table, objective: Objective, encoded: Encoded, folder: Path, disk: Path | None = None, **settings
) -> Job:
    chosen = Settings(**{"batch": 6, "epochs": 2, "learning_rate": 0.05, "save_every": 2, **settings})
    accelerator = Accelerator(cpu=True)
    scorer = Scorer(Numbers(), policy, FP32, torch.device("cpu"), chosen.tokens, None, Table)
    place = RunFolder(folder / "run")
    place.path.mkdir(parents=True, exist_ok=True)
    scorer.moved = checkpoint.latest(place.checkpoints) is not None
    anchors = Anchors(scorer, objective, chosen, accelerator, disk or folder / "cache", lambda *_: None)
    source = FromFile(encoded, anchors)
    return Job(policy, policy, Numbers(), objective, source, chosen, accelerator, FP32, place)


def test_step_zero_stops_a_run_whose_reference_is_another_model(tmp_path: Path):
    encoded = rows(12)
    job = make_job(Table(), DPO(), encoded, tmp_path)
    assert train(job) is None
    start = job.folder.history()[0]
    assert start["kind"] == "start" and start["drift"] == 0.0
    wrong = make_job(Table(), DPO(), encoded, tmp_path / "wrong")
    with torch.no_grad():
        wrong.bare.table += torch.randn(wrong.bare.table.shape)  # after its log-probs were stored
    with pytest.raises(StoppedRun, match="before the first update"):
        train(wrong)


@pytest.mark.parametrize("objective", [DPO(), KTO(), Consensus(IPO())], ids=repr)
def test_a_resumed_run_is_equal_bit_for_bit(objective: Objective, tmp_path: Path):
    encoded = rows(20, Labelled if isinstance(objective, KTO) else Pairs)
    plain = make_job(Table(), objective, encoded, tmp_path / "plain")
    train(plain)
    cut = make_job(Table(), objective, encoded, tmp_path / "cut")

    def kill(position, planned, outcome, seconds):
        if position.step == 5:
            raise MemoryError("a kill at a bad moment")

    cut.report = kill
    with pytest.raises(MemoryError):
        train(cut)
    again = make_job(Table(seed=3), objective, encoded, tmp_path / "cut")
    train(again)
    assert torch.equal(plain.bare.table, again.bare.table)
    keep = lambda job: [{**x, "seconds": 0} for x in job.folder.history() if x["kind"] == "step"]  # noqa: E731
    assert keep(plain) == keep(again)
    told = [line for job in (plain, again) for line in job.folder.history() if line["kind"] == "state"]
    assert told == [told[0]] * 2 if objective.remembers else told == []
    last = [checkpoint.latest(job.folder.checkpoints) for job in (plain, again)]
    for name in ("policy.safetensors", "optimiser.safetensors", "objective.safetensors"):
        a, b = ((path / name).read_bytes() for path in last if path is not None)
        assert a == b
    a, b = (json.loads((path / "state.json").read_text()) for path in last if path is not None)
    assert a["position"] == b["position"] == {"step": 8, "phase": 0, "place": 8}


def test_annotators_keep_their_numbers_and_rows_without_one_are_refused_or_all_of_one(tmp_path: Path):
    encoded, objective = rows(6), Consensus(SimPO())
    job = make_job(Table(), objective, encoded, tmp_path, save_every=0)
    train(job)
    last = job.folder.history()[-1]["reliability/annotator"]
    assert list(last) == ["ada", "ben", "cho"] and len(set(last.values())) > 1
    parts = encoded.select([2, 5]).numbered(("cho", "dan", "ben", "ada"))
    assert parts.columns["annotator"].tolist() == [0, 0] and parts.annotators[0] == "cho"

    nobody = replace(encoded, columns={}, annotators=())
    alone = make_job(Table(), objective, nobody, tmp_path / "alone", save_every=0)
    assert alone.source.annotators == ("everyone",)
    train(alone)
    assert list(alone.folder.history()[-1]["reliability/annotator"]) == ["everyone"]

    some = replace(encoded, columns={"annotator": torch.tensor([0, -1, 1, 2, -1, 0])})
    with pytest.raises(Refusal, match="the annotator of every row, but 2 of 6 have none: rows 2, 5"):
        make_job(Table(), objective, some, tmp_path / "some")
    with pytest.raises(Refusal, match="goes up to 2, but 1 annotators are named"):
        replace(encoded, annotators=("ada",)).numbered(("ada", "ben"))
    make_job(Table(), SimPO(), some, tmp_path / "deaf")  # who does not ask does not mind


def test_ctrl_c_ends_between_steps_with_a_checkpoint(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(20), tmp_path, save_every=0)

    def press(position, planned, outcome, seconds):
        if position.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    job.report = press
    assert train(job) == "interrupted"
    found = checkpoint.latest(job.folder.checkpoints)
    assert found is not None and found.name == checkpoint.name_of(3)
    job.report = lambda *_: None
    assert train(job) is None
    assert [x["step"] for x in job.folder.history() if x["kind"] == "step"] == list(range(1, 9))


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path):
    job = make_job(Table(), DPO(), rows(20), tmp_path, save_every=1, keep=2, evaluate_every=1)
    margins = iter([0.1, 0.5, 0.2, 0.3, 0.1, 0.0, 0.2, 0.1])
    job.evaluate = lambda step: {"margin": next(margins)}
    train(job)
    names = sorted(path.name for path in job.folder.checkpoints.iterdir())
    assert names == [checkpoint.name_of(k) for k in (2, 7, 8)]


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = make_job(Table(), DPO(), rows(20), tmp_path, save_every=2)
    original = checkpoint.write_json

    def full(path, value):
        if "step-00000004" in str(path):
            raise OSError(28, "No space left on device")
        original(path, value)

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        train(job)
    assert [path.name for path in job.folder.checkpoints.iterdir()] == [checkpoint.name_of(2)]
    monkeypatch.setattr(checkpoint, "write_json", original)
    assert train(make_job(Table(), DPO(), rows(20), tmp_path, save_every=2)) is None


def test_stored_reference_log_probs_survive_a_kill_and_serve_the_next_run(tmp_path: Path):
    encoded, domain, other = rows(300), Numbers(), Table(seed=4)
    scored: list[Sequence[int]] = []

    def score(picked: Sequence[int]) -> torch.Tensor:
        if len(scored) == 20:
            raise MemoryError("killed half way")
        scored.append(picked)
        return domain.score(other, encoded.select(picked)).logp.detach()

    groups = [list(range(i, i + 10)) for i in range(0, 300, 10)]  # shards of 13, 13 and 4 groups
    make = lambda: Store(encoded.counts, encoded.lengths, encoded.keys)  # noqa: E731
    with pytest.raises(MemoryError):
        fill(make(), score, groups, folder=tmp_path)
    scored.clear()
    store = make()
    fill(store, score, groups, folder=tmp_path)
    assert scored == groups[13:]
    torch.testing.assert_close(store(range(300)), domain.score(other, encoded).logp.detach())
    scored.clear()
    fill(make(), score, groups, folder=tmp_path)
    assert scored == []


def test_a_reference_log_prob_does_not_hang_on_what_another_grouping_left_in_the_folder(tmp_path: Path):
    encoded = rows(400)
    make = lambda: Store(encoded.counts, encoded.lengths, encoded.keys)  # noqa: E731

    def rounded(picked: Sequence[int]) -> torch.Tensor:
        """Log-probs that show which rows were scored at once, as rounding does."""
        some = encoded.select(picked)
        return torch.full((2 * len(some), max(some.lengths)), float(1000 * len(picked) + picked[0]))

    wide, narrow = ([list(range(i, i + n)) for i in range(0, 400, n)] for n in (40, 10))
    alone = make()
    fill(alone, rounded, narrow)
    fill(make(), rounded, wide, folder=tmp_path)
    fill(make(), rounded, narrow[:7], folder=tmp_path)  # some of its rows
    for _ in range(2):  # scored, then read
        beside = make()
        fill(beside, rounded, narrow, folder=tmp_path)
        assert torch.equal(beside(range(400)), alone(range(400)))


def test_rows_that_repeat_until_files_are_alike_all_have_their_reference(tmp_path: Path):
    encoded = rows(10).select([3] * 300)
    score = lambda picked: Numbers().score(Table(seed=4), encoded.select(picked)).logp.detach()  # noqa: E731
    store = Store(encoded.counts, encoded.lengths, encoded.keys)
    fill(store, score, [[i] for i in range(300)], folder=tmp_path)
    assert store.missing == [] and len(list(tmp_path.iterdir())) == 2


def test_a_folder_with_another_run_is_refused_and_the_same_run_goes_on(tmp_path: Path):
    folder = RunFolder(tmp_path / "x")
    assert folder.claim({"objective": "DPO()", "settings": {"seed": 0}}, overwrite=False) is False
    assert folder.claim({"objective": "DPO()", "settings": {"seed": 0}}, overwrite=False) is True
    with pytest.raises(Refusal, match="seed: 0 there, 1 here"):
        folder.claim({"objective": "DPO()", "settings": {"seed": 1}}, overwrite=False)
    (folder.path / "mine.txt").write_text("keep me")
    assert folder.claim({"objective": "DPO()", "settings": {"seed": 1}}, overwrite=True) is False
    assert (folder.path / "mine.txt").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(Refusal, match="not empty"):
        RunFolder(tmp_path / "full").claim({}, overwrite=False)


def test_a_wrong_setting_is_a_sentence():
    with pytest.raises(Refusal, match="did you mean 'learning_rate'"):
        Settings.of({"learning_rat": 1e-5})
    with pytest.raises(Refusal, match="learning_rate=-1"):
        Settings.of({"learning_rate": -1})
    with pytest.raises(Refusal, match="too_long='cut'"):
        Settings.of({"too_long": "cut"})


def test_no_warning_is_hidden():
    with pytest.raises(UserWarning):
        warnings.warn("a warning is an error here", UserWarning, stacklevel=1)

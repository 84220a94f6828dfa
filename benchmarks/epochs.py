"""One epoch on 32 real pairs, from rows in a file to a checkpoint. In: reading, encoding, the reference's log-probs, all steps,
the checkpoint at the end, and on our side splitting, duplicates, the probe of the scoring path and the metrics of every step.
Out, on both sides: imports and loading models; on ours also what the peer has nothing like (measuring before and after, the
verdict, the report)."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import peer
import torch
from accelerate import Accelerator
from figures import Figure
from workload import BETA, CPU, MAX_LENGTH, RATE, as_chat, loaded, pairs, precision

from penchant.domains.text.policy import reference_of
from penchant.engine.folder import RunFolder
from penchant.engine.loop import Job, train
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, FromFile, Scorer
from penchant.objectives import DPO
from penchant.running.prepare import prepare

PAIRS, BATCH, UNSEEN = 32, 8, 2


def measure(rounds: int) -> list[Figure]:
    rows = as_chat(pairs(PAIRS + UNSEEN))
    folder = Path(tempfile.mkdtemp(prefix="bench-epoch-"))
    for name, some in (("train", rows[:PAIRS]), ("unseen", rows[PAIRS:])):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    each: dict[str, list[float]] = {"peer": [], "ours": []}
    ours(folder, folder / "warm-up")
    for k in range(rounds):
        each["peer"].append(theirs())
        each["ours"].append(ours(folder, folder / f"round-{k}"))
        print(f"  round {k + 1}: {each['peer'][-1]:.4g} and {each['ours'][-1]:.4g} CPU s", flush=True)
    shutil.rmtree(folder)
    ratios = [a / b for a, b in zip(each["peer"], each["ours"], strict=True)]
    return [
        Figure(
            f"one epoch on {PAIRS} real pairs, data preparation and reference pass in it, against {peer.NAME}'s defaults",
            statistics.median(ratios),
            at_least=5,
            stretch=7,
            ours=statistics.median(each["ours"]),
            peer=statistics.median(each["peer"]),
            low=min(ratios),
            high=max(ratios),
            rounds=rounds,
        )
    ]


def theirs() -> float:
    """From rows to a checkpoint, by the peer's defaults."""
    torch.set_float32_matmul_precision("highest")
    own, ref = peer.model(), peer.model()
    own.config._name_or_path = str(peer.folder())  # it loads its tokenizer from there
    started = time.process_time()
    made = peer.trainer(pairs(PAIRS), BATCH, own, ref, num_train_epochs=1)
    made.train()
    took = time.process_time() - started
    shutil.rmtree(made.args.output_dir)
    return took


def ours(folder: Path, output: Path) -> float:
    """The same with the settings' defaults, but for what the two are compared at: batch, length, learning rate."""
    how = precision("bf16")
    how.apply()
    model = loaded()
    settings = Settings(batch=BATCH, max_length=MAX_LENGTH, learning_rate=RATE)
    objective, accelerator, run = DPO(beta=BETA), Accelerator(cpu=True), RunFolder(output)

    def never() -> Any:
        raise AssertionError("the policy has not moved when the reference is scored")

    started = time.process_time()
    prepared = prepare(folder / "train.jsonl", folder / "unseen.jsonl", model.domain, objective, settings)
    assert prepared.train is not None and len(prepared.train) == PAIRS
    with how.forward(CPU):
        model.policy.follow(model.policy.scoring_path)
    scorer = Scorer(model.domain, model.policy, how, CPU, settings.tokens, reference_of(model.policy), never)
    anchors = Anchors(scorer, objective, settings, accelerator, output / "reference", lambda what, done, total: None)
    run.claim({"bench": str(output)}, overwrite=False)
    source = FromFile(prepared.train, anchors)
    train(Job(model.policy, model.policy, model.domain, objective, source, settings, accelerator, how, run))
    took = time.process_time() - started
    run.release()
    return took

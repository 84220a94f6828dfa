"""Rows made on the way: each phase of the loop samples the policy, has the samples judged and pairs them. It judges nothing
itself and keeps every round, so that a killed run goes on with the same rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from penchant.domains.base import Samples
from penchant.engine.batching import order
from penchant.engine.drawing import Drawing, told
from penchant.engine.folder import RunFolder
from penchant.engine.metrics import reduced
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Kept
from penchant.engine.step import Material
from penchant.errors import Refusal
from penchant.feedback.records import Prompt
from penchant.files import write
from penchant.rewards.account import why
from penchant.rewards.base import Comparer, Context, Judge
from penchant.rollouts.round import Agreement, Round, Sampling, as_contexts, concluded, fits
from penchant.rollouts.server import Server

SERVER = 600.0
"""Seconds to wait for a server's answer to all samples of a prompt."""


class FromRounds:
    """Rows made on the way: each phase samples the policy, has the samples judged and pairs them. A round is saved before
    it is trained on, so that a killed run goes on with the same rows."""

    def __init__(
        self,
        contexts: Sequence[Context],
        judge: Judge | Comparer,
        anchors: Anchors,
        settings: Settings,
        folder: RunFolder,
        drawing: Callable[[Sequence[Prompt], int], tuple[Samples, Agreement | None]] | None = None,
    ) -> None:
        """drawing: who draws the samples of prompts by a seed; None for texts, which the settings say it of."""
        self.phases = settings.rounds
        self.annotators = anchors.annotators(context.annotator for context in contexts)
        self._contexts, self._judge, self._anchors, self._settings, self._folder = (
            contexts,
            judge,
            anchors,
            settings,
            folder,
        )
        fits(judge, settings.pairing)
        if drawing is None:
            server = None
            if settings.engine == "vllm":
                server = Server(str(settings.server), folder.rounds / "server", SERVER)
            drawing = Drawing(anchors.scorer, settings, anchors.accelerator, server)
        self._drawing = drawing
        self._rows: dict[int, Sequence[Mapping[str, Any]]] = {}

    def material(self, phase: int, step: int, begun: bool = False) -> Material:
        made = self._round(phase, begun)
        self._rows[phase] = made.pairs.rows
        if self._anchors.accelerator.is_main_process:
            noted = any(line["kind"] == "round" and line["round"] == made.number for line in self._folder.history())
            if not noted:
                self._folder.add({"kind": "round", "step": step, **made.statistics})
            self._write_pairs(phase)
        if not len(made.pairs.encoded):
            failed = f" ({why(self._judge)})" if made.pairs.failed else ""
            raise Refusal(
                f"round {made.number} gave no pair: of {len(made.contexts)} prompts {made.pairs.ties} had samples that all "
                f"scored the same, {made.pairs.failed} were not judged{failed}. Raise --samples, --limit or --temperature, or "
                "judge with finer scores."
            )
        # The first round starts where the run does; later ones from a policy that is gone once they have begun.
        kept = Kept(self._folder.rounds / f"prev-{made.number:04d}", begun) if phase else None
        return self._anchors.material(made.pairs.encoded, f"round {made.number}", self.annotators, kept)

    def _round(self, phase: int, begun: bool) -> Round:
        scorer = self._anchors.scorer
        path = self._path(phase)
        if begun and not path.exists():
            raise Refusal(
                f"{path} is gone: what the policy said as round {phase + 1} began cannot be sampled again, for the policy has "
                "moved on. Put the file back, or start the run anew with --overwrite."
            )
        accelerator = self._anchors.accelerator
        lacks = torch.tensor(float(accelerator.is_main_process and not path.exists()), device=accelerator.device)
        if reduced(accelerator, lacks):  # whether it is there, the first process says: another might see it a moment later
            self._make(phase, path)
        return Round.load(path, scorer.domain)

    def _path(self, phase: int) -> Path:
        return self._folder.rounds / f"round-{phase + 1:04d}.jsonl"

    def _make(self, phase: int, path: Path) -> None:
        """Samples in every process its share; the first has all of them judged and writes the round, whole."""
        settings, accelerator = self._settings, self._anchors.accelerator
        title = f"round {phase + 1}: sampling"
        self._anchors.progress(title, 0, 1)
        asked, seed = as_contexts(self._chosen(phase)), settings.seed * 100_003 + phase + 1
        sampling = Sampling(
            *(settings.samples, settings.limit, float(settings.temperature), float(settings.top_p), seed, settings.pairing),
            settings.engine,
        )
        start = time.perf_counter()
        samples, agreement = self._drawing([context.prompt for context in asked], seed)
        seconds, problem = time.perf_counter() - start, None
        if accelerator.is_main_process:
            try:
                concluded(asked, samples, self._judge, sampling, phase + 1, seconds, agreement).save(path)
            except (Refusal, OSError) as error:
                problem = error
        told(accelerator, problem, "judge or write the round")
        self._anchors.progress(title, 1, 1)

    def _chosen(self, phase: int) -> list[Context]:
        """The prompts of a round: all, or the next so many of an order that is shuffled anew when it is used up."""
        rows, count = len(self._contexts), self._settings.prompts_per_round
        if not count or count >= rows:
            return list(self._contexts)
        places = range(phase * count, (phase + 1) * count)
        picked = dict.fromkeys(order(rows, self._settings.seed, place // rows)[place % rows] for place in places)
        return [self._contexts[i] for i in picked]  # a prompt that ends one order and begins the next is asked once

    def _write_pairs(self, phase: int) -> None:
        """pairs.jsonl: what all rounds so far preferred, as feedback that `penchant align` reads."""
        for k in range(phase + 1):
            if k not in self._rows:
                self._rows[k] = Round.load(self._path(k), self._anchors.scorer.domain).pairs.rows  # no process waits here
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for k in range(phase + 1) for row in self._rows[k]]
        write(self._folder.pairs, "".join(line + "\n" for line in lines))

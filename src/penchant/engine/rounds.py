"""Rows made on the way: each phase of the loop samples the policy, has the samples judged and pairs them. It judges nothing
itself and keeps every round, so that a killed run goes on with the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from penchant.engine.batching import order
from penchant.engine.folder import RunFolder
from penchant.engine.settings import Settings
from penchant.engine.sources import Anchors, Kept
from penchant.engine.step import Material
from penchant.errors import Refusal
from penchant.files import write
from penchant.rewards.base import Comparer, Context, Judge
from penchant.rewards.function import why
from penchant.rollouts.round import Round, rollout


class FromRounds:
    """Rows made on the way: each phase samples the policy, has the samples judged and pairs them. A round is saved before
    it is trained on, so that a killed run goes on with the same rows."""

    def __init__(
        self, contexts: Sequence[Context], judge: Judge | Comparer, anchors: Anchors, settings: Settings, folder: RunFolder
    ) -> None:
        self.phases = settings.rounds
        self.annotators = anchors.annotators(context.annotator for context in contexts)
        self._contexts, self._judge, self._anchors, self._settings, self._folder = (
            contexts,
            judge,
            anchors,
            settings,
            folder,
        )
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
        scorer, settings = self._anchors.scorer, self._settings
        path = self._folder.rounds / f"round-{phase + 1:04d}.jsonl"
        if begun and not path.exists():
            raise Refusal(
                f"{path} is gone: what the policy said as round {phase + 1} began cannot be sampled again, for the policy has "
                "moved on. Put the file back, or start the run anew with --overwrite."
            )
        # One process samples; the others read what it wrote.
        if self._anchors.accelerator.is_main_process and not path.exists():
            self._anchors.progress(f"round {phase + 1}: sampling", 0, 1)
            rollout(
                scorer.domain,
                scorer.policy,
                self._chosen(phase),
                self._judge,
                count=settings.samples,
                limit=settings.limit,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=settings.seed * 100_003 + phase + 1,
                how=settings.pairing,
                number=phase + 1,
            ).save(path)
            self._anchors.progress(f"round {phase + 1}: sampling", 1, 1)
        self._anchors.accelerator.wait_for_everyone()
        return Round.load(path, scorer.domain)

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
                self._rows[k] = self._round(k, begun=True).pairs.rows
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for k in range(phase + 1) for row in self._rows[k]]
        write(self._folder.pairs, "".join(line + "\n" for line in lines))

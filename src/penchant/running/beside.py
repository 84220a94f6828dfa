"""What subjects whose responses are no texts have in common: feedback that lies beside the data, samples that are kept where a
person can look at them, judges that read no texts. What is aligned, pictures.py and policies.py say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from penchant.domains.base import Samples
from penchant.engine.drawing import Plain
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Past, Scorer
from penchant.engine.spread import Spread
from penchant.errors import Refusal
from penchant.feedback.reading import Source
from penchant.files import write
from penchant.objectives.base import Objective
from penchant.rewards.base import Comparer, Judge
from penchant.rewards.naming import READERS, Named
from penchant.running import choices
from penchant.running.prepare import prepare
from penchant.running.subject import Prepared


class Opening(Protocol):
    """Things beside the data, by name."""

    def holds(self, name: str) -> bool: ...

    def open(self, name: str) -> Any: ...


class Beside:
    """A subject of a run, but for how it is loaded, scored and shown."""

    made = ""
    """What it makes, in a word."""
    judged = ""
    """Who judges that, in a sentence."""

    def __init__(self, name: str, objective: Objective, settings: Settings, spread: Spread) -> None:
        self.name, self.objective, self.settings = name, objective, settings
        if spread.mesh is not None:
            raise Refusal(f"a model of {self.made} is not split over processes: launch without FSDP.")
        self.device = spread.accelerator.device
        self._fingerprint: str | None = None
        self._opened: list[Opening] = []

    def unchanged(self, fingerprint: str) -> None:
        """Refuses a model that is not what it was when this run first loaded it."""
        if self._fingerprint not in (None, fingerprint):
            raise Refusal(
                f"model {self.name!r} is no longer what it was when this run began, and the run is held against its start. Put "
                "its files back; the same command then goes on."
            )
        self._fingerprint = fingerprint

    # --- feedback

    def read(self, loaded: Any, rows: Any) -> tuple[Source, Opening]:
        """Rows checked, and what opens their responses."""
        raise NotImplementedError

    def prepare(self, loaded: Any, data: Any, unseen: Any) -> Prepared:
        """Rows read, split and encoded."""

        def opening(rows: Any) -> Source:
            source, opened = self.read(loaded, rows)
            self._opened.append(opened)
            return source

        return prepare(data, unseen, loaded.domain, self.objective, self.settings, opening=opening)

    def open(self, name: str) -> Any:
        """The response, from whichever data it came with."""
        found = next((one for one in self._opened[:-1] if one.holds(name)), self._opened[-1])
        return found.open(name)

    # --- how it computes

    def still(self, chosen: dict[str, Any], loaded: Any, spread: Spread, reached: int) -> tuple[dict[str, Any], str]:
        """The choices of a run that goes on; none of them is of this kind of model alone."""
        return choices.still(chosen, spread, reached, lambda _: "")

    def history(self, chosen: Mapping[str, Any], loaded: Any, precision: Precision, device: torch.device) -> Sequence[Past]:
        """None: objectives that are held against saved models read texts."""
        return ()

    # --- who judges it, and what is kept of its samples

    def judge(self, scorer: Scorer, named: Named | None) -> Judge | Comparer | None:
        """The judge as it is; one that reads texts is refused."""
        if isinstance(named, READERS):
            raise Refusal(f"the judge {named.name!r} reads texts; {self.judged}")
        return named

    def drawing(self, scorer: Scorer, folder: Path) -> Plain:
        """Leaves every sample of a round in the run's folder, where its pairs name it."""

        def keep(samples: Samples) -> None:
            for names, found in zip(samples.texts, samples.seen, strict=True):
                for name, one in zip(names, found, strict=True):
                    write(folder / name, self.written()(one))

        return Plain(scorer, self.settings, keep)

    def written(self) -> Callable[[Any], bytes]:
        """Makes the file of one sample."""
        raise NotImplementedError

    def leave(self, loaded: Any, draft: Path) -> None:
        """Nothing: the folder is read as it is."""

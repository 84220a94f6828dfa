"""Which kind of thing a model's name stands for: a language model, a model of pictures, a policy of an agent. Nothing of it is
loaded here."""

from __future__ import annotations

from pathlib import Path

from penchant.domains.diffusion.loading import DEMO
from penchant.domains.diffusion.policy import PICTURES
from penchant.domains.policy.policy import DEMO as ACTING_DEMO
from penchant.domains.policy.policy import POLICY
from penchant.engine.settings import Settings
from penchant.engine.spread import Spread
from penchant.objectives.base import Objective
from penchant.rewards.naming import Named
from penchant.running.pictures import Drawn
from penchant.running.policies import Acting
from penchant.running.subject import Subject
from penchant.running.texts import Texts

INDEX = "model_index.json"
"""The file by which `diffusers` knows a pipeline."""


def subject_of(
    name: str,
    objective: Objective,
    settings: Settings,
    named: Named | None,
    spread: Spread,
    answers: Path | None = None,
) -> Subject:
    """What is aligned, by the model's name. named: the judge as it was asked for. answers: a folder in which runs that begin alike
    keep what their start answers, where these are texts."""
    if name == DEMO or is_pictured(name, settings.revision):
        return Drawn(name, objective, settings, spread)
    if name == ACTING_DEMO or (Path(name) / POLICY).is_file():
        return Acting(name, objective, settings, spread)
    return Texts(name, objective, settings, named, spread, answers)


def is_pictured(name: str, revision: str | None) -> bool:
    """Whether a folder, or a repository of the hub, holds a model of pictures. Where the hub cannot be reached it is looked for in
    its local cache; what is in neither is taken for a language model, whose loading then says what is wrong."""
    folder = Path(name)
    if folder.is_dir():
        return any((folder / file).is_file() for file in (INDEX, PICTURES))
    if folder.exists() or name.count("/") != 1:
        return False
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(name, INDEX, revision=revision)
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return False
    return True

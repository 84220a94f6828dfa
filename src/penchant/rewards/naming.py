"""How a judge is named on the command line and in a recipe: "vader", "endpoint:URL model=NAME" or "package.module:name". A name
is looked up and imported, never evaluated."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, cast

from penchant.errors import Refusal, nearest
from penchant.rewards.asking import Asking
from penchant.rewards.base import Comparer, Judge
from penchant.rewards.behaviour import Gentle, Return, Success
from penchant.rewards.endpoint import WORD, EndpointComparer, EndpointJudge, read_endpoint
from penchant.rewards.function import FunctionJudge, Single
from penchant.rewards.pictures import Compressible, Ink, Recognised
from penchant.rewards.reward_model import RewardModel
from penchant.rewards.rules import LengthRepetition
from penchant.rewards.vader import Vader
from penchant.words import brief

Named = Judge | Comparer | Asking | RewardModel
"""What a name may stand for: a judge, a comparer, or one that is still to be given the model it asks."""
JUDGES: dict[str, Callable[[], Judge | Asking]] = {"vader": Vader, "rules": LengthRepetition, "self": Asking}
JUDGES |= {"ink": Ink, "compressible": Compressible, "recognised": Recognised}
JUDGES |= {"return": Return, "success": Success, "gentle": Gentle}
"""The judges known by a word; "self" is the model that the run starts from; then come three of pictures and three of behaviour."""
READERS = (Asking, RewardModel, Vader, LengthRepetition, EndpointJudge, EndpointComparer)
"""Those that read texts and nothing else."""
MODEL = "model:"
"""What stands before the name of a model that is to judge."""
TRAINED = ("reward", "implicit")
"""What stands before the name of a model that was trained to judge, or of a run."""


def load_judge(spec: str) -> Named:
    """The judge called `spec`: a known word, `model:NAME` of a language model that compares, `endpoint:URL model=NAME` of one that
    is asked over the network, `reward:NAME` of a model for sequence classification with one label, `implicit:RUN` of a finished
    run, or `package.module:name` of a function (prompt, response) → score or of a ready judge or comparer. Modules are found as
    Python finds them, and at last in the current folder."""
    if spec in JUDGES:
        return JUDGES[spec]()
    if spec.startswith(WORD) and spec.strip() != WORD:
        return read_endpoint(spec)
    if spec.startswith(MODEL) and spec != MODEL:
        return Asking(spec.removeprefix(MODEL))
    module_name, colon, name = spec.partition(":")
    if module_name in TRAINED and name:
        return RewardModel(name, cast(Any, module_name))
    if not colon or not module_name or not name:
        raise Refusal(
            f"there is no judge {brief(spec)}; {nearest(spec, JUDGES)} "
            "A judge of your own is named package.module:function, with a function (prompt, response) → score."
        )
    thing = find(spec, module_name, name)
    if isinstance(thing, type):
        raise Refusal(f"the judge {spec!r} is a class; name an instance of it, or a function (prompt, response) → score.")
    if isinstance(thing, Named):
        return thing
    if not callable(thing):
        raise Refusal(f"the judge {spec!r} is {brief(thing)}, neither a judge nor a function (prompt, response) → score.")
    score = cast(Single, thing)  # what it returns is checked at every call
    return FunctionJudge(score, spec)


def find(spec: str, module_name: str, name: str) -> Any:
    """What stands under `name` in the module."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that a file here shadows nothing that is installed
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        absent = missing.name or module_name
        ours = module_name == absent or module_name.startswith(f"{absent}.")
        said = f"there is no module {absent!r}" if ours else f"{module_name} imports {absent!r}, which is not installed"
        raise Refusal(f"the judge {spec!r} cannot be loaded: {said}.") from missing
    except Exception as error:
        said = f"{module_name} fails with {type(error).__name__}: {brief(str(error), 200)}"
        raise Refusal(f"the judge {spec!r} cannot be loaded: {said}.") from error
    if name not in vars(module):
        public = [word for word, thing in vars(module).items() if callable(thing) and not word.startswith("_")]
        mend = nearest(name, public) if public else "the module defines no function."
        raise Refusal(f"the judge {spec!r} cannot be loaded: {module_name} has no {name!r}; {mend}")
    return vars(module)[name]

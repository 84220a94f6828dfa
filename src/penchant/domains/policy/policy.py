"""A policy of an agent as something to align: it tells the log-probabilities of actions, or scores steps as a reward model, inside
its own forward, so that a wrapper sees every use of it. It saves itself in safetensors; it knows no rows and no simulator."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from penchant.domains.policy.actions import Actions, actions_of
from penchant.domains.trained import Trained
from penchant.errors import Refusal
from penchant.files import read_json, write_json
from penchant.objectives.scored import wide
from penchant.words import brief

DEMO = "policy-demo"
"""The small policy that is trained here, in demo.py."""
POLICY, WEIGHTS, FORMAT = "policy.json", "policy.safetensors", "penchant policy 1"
"""The files of a saved policy."""
EXACT = 10_000_000
"""Parameters up to which a policy acts in float64."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "leaky-relu": nn.LeakyReLU}


class MLP(nn.Module):
    """Layers of one width after the other, with an activation between them and none after the last."""

    def __init__(self, given: int, size: int, hidden: Sequence[int] = (128, 128), activation: str = "tanh") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise Refusal(f"activation={activation!r}; it must be one of {', '.join(ACTIVATIONS)}.")
        self.hidden, self.activation = tuple(hidden), activation
        widths = [given, *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], size))

    def forward(self, x: Float[Tensor, "*n given"]) -> Float[Tensor, "*n size"]:
        return self.layers(x)


class ControlPolicy(Trained):
    """Any network of observations with a distribution over actions; or, without one, a reward model of observation and action.
    Dropout is off, in training too: policy and reference must agree exactly before the first step."""

    def __init__(
        self,
        network: nn.Module,
        actions: Actions | None,
        observed: int,
        acted: int,
        tasks: Sequence[str],
    ) -> None:
        """network: [n, given] → [n, size of the actions' features], or [n, 1] for a reward model; given is `observed` numbers, plus
        one for each task where there are several, plus `acted` for a reward model. tasks: the names of what it can be asked for."""
        super().__init__()
        if not tasks or len(set(tasks)) != len(tasks):
            raise Refusal(f"tasks {brief(list(tasks))}: there must be at least one, and none twice.")
        if actions is not None and actions.acted != acted:
            raise Refusal(f"acted={acted}, but the distribution is of actions of {actions.acted} numbers.")
        self.network, self.actions, self.observed, self.acted, self.tasks = network, actions, observed, acted, tuple(tasks)
        self.head: Literal["lm", "reward"] = "reward" if actions is None else "lm"
        self.register_buffer("mean", torch.zeros(observed))
        self.register_buffer("std", torch.ones(observed))
        self._held: tuple[ControlPolicy, ...] = ()  # a tuple: a submodule would train, be saved and be counted
        self.train()

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> ControlPolicy:
        """Leaves dropout off."""
        super().train(False)
        self.training = mode
        return self

    def normalise(self, observations: Float[Tensor, "n observed"], least: float = 1e-2) -> None:
        """From now on observations are read less their mean here, over their standard deviation (at least `least`)."""
        self.mean.copy_(observations.mean(0))
        self.std.copy_(observations.std(0, correction=0).clamp_min(least))

    def forward(
        self,
        contexts: Int[Tensor, "n two"],
        observations: Float[Tensor, "n steps observed"],
        actions: Float[Tensor, "n steps acted"],
        values: Collection[str] = (),
    ) -> dict[str, Tensor]:
        """logp [n, steps] of the recorded actions (of a reward model: reward [n, steps]), and the wanted values."""
        seen = self.seen(contexts, observations)
        if self.actions is None:
            return {"reward": self.network(torch.cat([seen, actions.to(seen)], -1))[..., 0]}
        features = self.network(seen)
        out = {"logp": self.actions.logp(features, actions.to(wide(features)))}
        if "entropy" in values:
            out["entropy"] = self.actions.entropy(features)
        return out

    def seen(self, contexts: Int[Tensor, "n two"], observations: Float[Tensor, "n steps observed"]) -> Tensor:
        """What the network is given of observations."""
        x = (observations.to(self.mean) - self.mean) / self.std
        if len(self.tasks) > 1:
            task = nn.functional.one_hot(contexts[:, 0].to(x.device), len(self.tasks)).to(x)
            x = torch.cat([x, task[:, None].expand(-1, x.shape[1], -1)], -1)
        return x

    def acting(self) -> ControlPolicy:
        """The policy to act with: up to EXACT parameters a copy in float64, whose actions are rounded to float32 at the end. A
        matrix product rounds otherwise for every number of rows, and a simulator makes much of a last bit; so what is done does
        not hang on how many episodes go on together. A larger network acts as it is."""
        small = sum(p.numel() for p in self.parameters()) <= EXACT
        return self.twin().double() if small else self

    def act(
        self,
        contexts: Int[Tensor, "n two"],
        observations: Float[Tensor, "n observed"],
        noise: Tensor,
        temperature: float = 1.0,
    ) -> Float[Tensor, "n acted"]:
        """An action for each observation, without gradient."""
        if self.actions is None:
            raise Refusal("this is a reward model, which does nothing; only a policy acts.")
        with torch.no_grad():
            features = self.network(self.seen(contexts, observations[:, None]))[:, 0]
            return self.actions.draw(features, noise, temperature).float().cpu()

    # --- the reference

    @property
    def knows_reference(self) -> bool:
        """Whether a copy to be compared with is held."""
        return bool(self._held)

    def hold(self, copy: ControlPolicy) -> None:
        """Keeps a frozen copy as the reference. It is no part of this module."""
        self._held = (copy.requires_grad_(False).to(self.device),)

    def twin(self) -> ControlPolicy:
        """A frozen copy of the policy as it is now."""
        held, self._held = self._held, ()
        try:
            return copy.deepcopy(self).requires_grad_(False)
        finally:
            self._held = held

    # --- what is kept

    def tensors(self, keep: bool = True) -> dict[str, Tensor] | None:
        """None: nothing is split over processes, so the policy itself has all tensors."""
        return None

    def save(self, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
        """The policy as `load` reads it: its weights in safetensors, and what it is as JSON. Not atomic by itself: give it a draft
        folder. Raises Refusal for a network that is not known by name."""
        if not isinstance(self.network, MLP):
            raise Refusal("only a policy whose network is an MLP is saved here; save your own network by your own code.")
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            "format": FORMAT,
            "observed": self.observed,
            "acted": self.acted,
            "tasks": list(self.tasks),
            "hidden": list(self.network.hidden),
            "activation": self.network.activation,
            "actions": None if self.actions is None else self.actions.told(),
        }
        write_json(folder / POLICY, told)
        save_file({name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}, folder / WEIGHTS)


def built(
    observed: int,
    actions: Actions | None,
    acted: int,
    tasks: Sequence[str],
    hidden: Sequence[int] = (128, 128),
    activation: str = "tanh",
) -> ControlPolicy:
    """A new policy with an MLP; without actions, a new reward model."""
    given = observed + (len(tasks) if len(tasks) > 1 else 0) + (acted if actions is None else 0)
    return ControlPolicy(
        MLP(given, 1 if actions is None else actions.size, hidden, activation), actions, observed, acted, tasks
    )


def load(name: str) -> ControlPolicy:
    """The policy that `ControlPolicy.save` left in a folder, or policy-demo. Raises Refusal for anything else."""
    if name == DEMO:
        from penchant.domains.policy import demo  # which saves what it has made by this module

        name = str(demo.folder())
    folder = Path(name)
    if not (folder / POLICY).is_file():
        raise Refusal(f"{brief(name)} holds no {POLICY}, so it is no policy that is known here.")
    told: Any = read_json(folder / POLICY)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise Refusal(f"{folder / POLICY} is no {FORMAT!r}; save the policy anew.")
    try:
        if not all(isinstance(x, str) for x in told["tasks"]) or not isinstance(told["actions"], dict | None):
            raise Refusal("its tasks must be names, and its actions an object of kind and settings.")
        actions = None if told["actions"] is None else actions_of(told["actions"])
        policy = built(
            *(told["observed"], actions, told["acted"], told["tasks"], told["hidden"], told["activation"]),
        )
        tensors = load_file(folder / WEIGHTS)
        if broken := [name for name, x in tensors.items() if not bool(x.isfinite().all())]:
            raise Refusal(f"{broken[0]} holds numbers that are not finite.")
        policy.to(tensors["mean"].dtype).load_state_dict(tensors)
        if not bool((policy.std > 0).all()):
            raise Refusal("the standard deviations of its observations must be above 0.")
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise Refusal(f"{folder}: the policy in it cannot be read: {brief(str(error), 200)}. Save it anew.") from error
    return policy


def unwrap(policy: nn.Module) -> ControlPolicy:
    """The policy inside whatever accelerate has put around it."""
    from accelerate.utils import extract_model_from_parallel

    inner = extract_model_from_parallel(policy)
    if not isinstance(inner, ControlPolicy):
        raise Refusal(f"behaviour needs a ControlPolicy, as penchant.domains.policy has it, not a {type(inner).__name__}.")
    return inner

"""A vLLM server that samples in the policy's place: it is given the policy's weights and asked for token ids, and everything it
answers is checked. It is not started here, and nothing is scored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.sampling import Answer
from penchant.errors import Refusal
from penchant.files import fingerprint, remove, whole_folder
from penchant.http import Address, Failed, checked
from penchant.words import brief

AT_ONCE = 64
"""Prompts that are asked for at the same time; the server batches them."""
PROBE = "What a lovely day!\nIs it 10 °C, or naïve to ask?"
"""A text whose tokens differ between tokenizers."""
KEY = "VLLM_API_KEY"
"""The variable that holds the server's key, as the server itself reads it."""
MEND = "Start one (docs/vllm.md has the commands), or sample with --engine own."
STARTED = "It must be started with VLLM_SERVER_DEV_MODE=1, as docs/vllm.md says."
ADAPTED = "It must be started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, as docs/vllm.md says."


class Server:
    """Speaks vLLM's own protocol, which is OpenAI's with token ids."""

    def __init__(self, url: str, folder: Path, timeout: float) -> None:
        """folder: where weights are handed over; the server must see it under the same path."""
        self.at = Address(address(url), timeout, (KEY,), MEND)
        self._folder = folder.resolve()
        self._base, self._room = "", None
        self._adapter: str | None = None
        self.tensors: Mapping[str, Tensor] | None = None
        """The policy's tensors, whole, where it is split over processes."""

    # --- the weights

    def hold(self, policy: TextPolicy) -> None:
        """Gives the server the policy's weights: an adapter is loaded beside the model it serves, a whole model takes its
        place. Raises Refusal where the server serves another kind of model or does not take them."""
        self._meet(policy)
        weights = self._folder / "weights"
        with whole_folder(weights) as draft:
            policy.save(draft, self.tensors)
        if policy.reference is None:
            self._reload(weights)
            remove(weights)
        else:
            self._adapt(weights)

    def _meet(self, policy: TextPolicy) -> None:
        """Which model the server serves, and whether it reads text as the policy does."""
        served = [one for one in _part(self.at.get("/v1/models"), "data", list) if isinstance(one, dict)]
        base = next((one for one in served if not one.get("parent")), None)
        if base is None or not isinstance(base.get("id"), str):
            raise Refusal(f"the server at {self.at.url} serves no model; it must serve the one that the run starts from.")
        self._base, self._room = base["id"], base.get("max_model_len")
        try:
            found = self.at.post("/tokenize", {"model": self._base, "prompt": PROBE, "add_special_tokens": False})
        except Failed as error:
            if error.status != 404:
                raise
            return  # not every server says; a prompt's ids are compared all the same, and the log-probs of its answers
        ours = policy.tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        if _part(found, "tokens", list) != ours:
            raise Refusal(
                f"the server at {self.at.url} serves {self._base!r}, whose tokenizer is another than this model's; it must "
                "serve the model that the run starts from."
            )

    def _reload(self, weights: Path) -> None:
        how = {"weights_path": str(weights), "is_checkpoint_format": True}
        try:
            self.at.post("/collective_rpc", {"method": "reload_weights", "kwargs": how})
            cleared = self.at.post("/reset_prefix_cache", {})  # what was cached was computed with the weights before
        except Failed as error:
            raise Refusal(f"the server did not take the policy's weights. {error} {STARTED}") from None
        if isinstance(cleared, dict) and cleared.get("success") is False:
            raise Refusal(
                f"the server at {self.at.url} did not clear its prefix cache, so it would go on with keys and values of the "
                "weights before; nobody else may use it during a run."
            )

    def _adapt(self, weights: Path) -> None:
        name = f"penchant-{fingerprint((weights / 'adapter_model.safetensors').read_bytes())[:16]}"
        served = _part(self.at.get("/v1/models"), "data", list)
        if not any(isinstance(one, dict) and one.get("id") == name for one in served):  # a name by content is those weights
            place = self._folder / name
            remove(place)
            weights.rename(place)
            try:
                self.at.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(place)})
                if self._adapter is not None:
                    self.at.post("/v1/unload_lora_adapter", {"lora_name": self._adapter})
            except Failed as error:
                raise Refusal(f"the server did not take the policy's adapter. {error} {ADAPTED}") from None
            if self._adapter is not None:
                remove(self._folder / self._adapter)
        remove(weights)
        self._adapter = name

    # --- the answers

    def __call__(
        self,
        policy: TextPolicy,
        prompts: Sequence[Tensor],
        *,
        stops: Collection[int],
        count: int,
        limit: int,
        temperature: float,
        top_p: float,
        seed: int,
        batch: int,
        numbers: Sequence[int],
    ) -> list[list[Answer]]:
        """What `penchant.domains.text.sampling.generate` says, by the server, once it has the policy's weights. Its random
        numbers are its own; each prompt's seed follows from `seed` and its number."""
        self.hold(policy)
        vocabulary = len(policy.plain_model.get_input_embeddings().weight)
        ends = sorted(stops)

        def ask(prompt: Tensor, number: int) -> list[Answer]:
            if isinstance(self._room, int) and len(prompt) + limit > self._room:
                raise Refusal(
                    f"prompt {number + 1} has {len(prompt):,} tokens; with {limit:,} to come it passes the {self._room:,} that "
                    "the server was started for (--max-model-len)."
                )
            request = {
                "model": self._adapter or self._base,
                "prompt": prompt.tolist(),
                "n": count,
                "max_tokens": limit,
                "temperature": temperature,
                "top_p": top_p,
                "seed": int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "little"),
                "stop_token_ids": ends,
                "logprobs": 1,
                "return_token_ids": True,
                "skip_special_tokens": False,
                # or the model's generation_config.json would decide
                **{"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
                **{"presence_penalty": 0.0, "frequency_penalty": 0.0},
            }
            said = self.at.post("/v1/completions", request)
            try:
                return _answers(said, request, vocabulary)
            except _Wrong as wrong:
                raise Refusal(f"prompt {number + 1}: the server at {self.at.url} {wrong}") from None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(ask, prompts, numbers))


def address(url: str) -> str:
    """The server's address, however it is given: OpenAI's clients end it in /v1. Refuses what is none."""
    return checked(url, KEY).removesuffix("/v1")


class _Wrong(ValueError):
    """What is wrong with an answer, as the end of a sentence that begins with the server."""


def _answers(said: Any, request: dict[str, Any], vocabulary: int) -> list[Answer]:
    """The answers in the order of their index, each as it must be."""
    if _part(said, "model", str) != request["model"]:
        raise _Wrong(f"answered as the model {brief(said['model'])}, not as {request['model']!r}.")
    choices = _part(said, "choices", list)
    if sorted(_part(one, "index", int) for one in choices) != list(range(request["n"])):
        raise _Wrong(f"gave {len(choices)} answers where {request['n']} were asked for.")
    return [_answer(one, request, vocabulary) for one in sorted(choices, key=lambda one: one["index"])]


def _answer(one: dict[str, Any], request: dict[str, Any], vocabulary: int) -> Answer:
    ids, read = one.get("token_ids"), one.get("prompt_token_ids")
    if not isinstance(ids, list) or not isinstance(read, list):
        raise _Wrong(
            "returns no token ids, and text that is made into tokens again is not what was sampled; vLLM 0.10.2 can."
        )
    if read != request["prompt"]:
        raise _Wrong(f"read {len(read)} other tokens than the {len(request['prompt'])} it was sent.")
    if not ids or len(ids) > request["max_tokens"] or not all(type(i) is int and 0 <= i < vocabulary for i in ids):
        raise _Wrong(
            f"gave {len(ids)} tokens that are no answer: 1 to {request['max_tokens']} below {vocabulary:,} were asked for."
        )
    ends = request["stop_token_ids"]
    by_itself = one.get("finish_reason") == "stop"
    if (
        any(i in ends for i in ids[:-1])
        or by_itself != (ids[-1] in ends)
        or not (by_itself or len(ids) == request["max_tokens"])
    ):
        raise _Wrong(
            f"ended an answer of {len(ids)} tokens with {brief(one.get('finish_reason'))}; it must end in one of the stop tokens "
            f"{ends} and nowhere hold one before, or be cut after {request['max_tokens']}."
        )
    logp = _part(_part(one, "logprobs", dict), "token_logprobs", list)
    if len(logp) != len(ids) or not all(isinstance(x, int | float) and math.isfinite(x) and x <= 1e-4 for x in logp):
        raise _Wrong(f"gave {len(logp)} log-probs that are none of its {len(ids)} tokens'.")
    return Answer(torch.tensor(ids), torch.tensor(logp, dtype=torch.float32))


def _part(value: Any, name: str, kind: type) -> Any:
    """A part of what a server said, of this kind."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise Refusal(f"a server answered without {name!r}, as no vLLM server does: {brief(str(value), 120)}")
    return found

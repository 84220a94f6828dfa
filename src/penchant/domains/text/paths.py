"""Which way of reading responses is right for a model, found by trying: sharing prompts, packing, or padding as a last resort.
Wrong means that it is not taken, and why is told; no architecture is named here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from penchant.domains.text.reading import Plain, Shared
from penchant.errors import Refusal
from penchant.words import brief

if TYPE_CHECKING:
    from penchant.domains.text.policy import TextPolicy

EXACT = 2e-4
"""Largest difference of a token's log π from the plain path's in float32: rounding explains a tenth of it."""
ROUGH = 0.5
"""The same in a number format of 16 bits."""
TOLD = 0.01
"""In float32 the difference is also at most this share of what another prompt changes, which a wrong path could not keep to."""
WINDOWS = ("sliding_window", "attention_chunk_size")
SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
NAMES = frozenset({"architectures", "dtype", "transformers_version"})
"""What a config says of how it was saved."""
CAP = "final_logit_softcapping"
"""Numbers of a config that may limit what a token sees or change its logits. They are tried, never believed."""

WRONG = (
    Refusal,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model may answer to a path that is not for it."""

KERNELS: dict[str, tuple[Literal["blocks", "flex"], ...]] = {"cuda": ("flex", "blocks")}
"""What attends on a device, the first that is right; where none is named, blocks."""
BENT = {False: 1e-3, True: 0.1}
"""Largest share by which a gradient may be off, in float32 and in 16 bits."""

Example = tuple[list[Tensor], list[list[Tensor]]]


@dataclass(frozen=True)
class ScoringPath:
    """How a policy's responses are read."""

    name: Literal["tree", "packed", "padded"]
    """tree: each prompt once for all of its responses, rows packed without padding; packed: the prompt once for each
    response; padded: each response in a sequence of its own."""
    head: Literal["hidden", "logits"]
    """hidden: logits are made from hidden states where they are needed, a chunk at a time; logits: by the model itself."""
    scale: float = 1.0
    cap: float | None = None
    reach: int | None = None
    """Tokens of prompt and response up to which this was probed; longer rows are padded. None: any."""
    decodes: bool = False
    """Whether sampling keeps a prompt's keys and values once for all of its answers."""
    said: str = ""
    """Why nothing faster was taken."""
    kernel: Literal["blocks", "flex"] = "blocks"
    """What attends over packed rows: calls block by block, or one kernel for all."""
    trunk: int = 0
    """Layers below those that train: what they make of a row is rounded, and kept."""

    def reaches(self, contexts: Sequence[Tensor], responses: Sequence[Sequence[Tensor]]) -> bool:
        """Whether rows of this length were probed."""
        sizes = (len(x) + len(y) for x, ys in zip(contexts, responses, strict=True) for y in ys)
        return self.reach is None or max(sizes) <= self.reach

    def bears(self, other: ScoringPath) -> bool:
        """Whether a probe that found this path also vouches for the other, which may be a slower one."""
        order = ("tree", "packed", "padded")
        head = other.head == "logits" or (self.head, self.scale, self.cap) == (other.head, other.scale, other.cap)
        far = self.reach is None or (other.reach is not None and other.reach <= self.reach)
        kernel = other.kernel in ("blocks", self.kernel)
        return head and far and kernel and order.index(other.name) >= order.index(self.name)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        told = {"tree": "prompts shared and rows packed", "packed": "rows packed", "padded": "rows padded"}[self.name]
        told += ", attention in one kernel" if self.kernel == "flex" else ""
        told += f", over {self.trunk} frozen layers" if self.trunk else ""
        return f"{told}{'' if self.head == 'hidden' else ', logits by the model'}{f' ({self.said})' if self.said else ''}"


@torch.no_grad()
def probe(policy: TextPolicy) -> ScoringPath:
    """The fastest path on which this policy says what it says plainly, in the number format that is in force. A prompt
    shared is taken only if changing one response leaves the log-probs of the others equal to the last bit. The same weights
    give the same answer; nothing random is drawn."""
    device = policy.device.type
    window = min((x for x in _numbers(policy, WINDOWS).values() if x > 0), default=None)
    reach = None
    if window is not None and policy.longest is not None and policy.longest <= window:
        window, reach = None, policy.longest  # no row of this run is long enough for the window to matter
    example = _example(policy, 9 if window is None else int(window) + 5)
    before = policy.path
    policy.follow(ScoringPath("padded", "logits"))
    try:
        with torch.autocast(device, enabled=False):
            found = replace(_head(policy, example[0][0]), trunk=0 if policy.trunk is None else policy.trunk.split.frozen)
        said = [found.said] if found.said else []
        with policy.unkept():
            for name, kernel in [
                (name, kernel) for name in ("tree", "packed") for kernel in KERNELS.get(device, ("blocks",))
            ]:
                path = replace(found, name=name, kernel=kernel)
                wrong = _wrong(policy, path, example)
                if wrong is None:
                    decodes = _decodes(policy, replace(path, decodes=True), example)
                    return replace(path, reach=reach, decodes=decodes, said="; ".join(said))
                said.append(f"{name}{'' if kernel == 'blocks' else ' in one kernel'}: {wrong}")
            padded = replace(found, name="padded", said="; ".join(said))
            if policy.trunk is not None and (wrong := _wrong(policy, padded, example)) is not None:
                raise Refusal(f"top:{policy.trunk.top}: over frozen layers it is not the model it is as a whole: {wrong}.")
        return padded
    finally:
        policy.follow(before or ScoringPath("padded", "logits"))
        policy.path = before


def alike(one: TextPolicy, other: TextPolicy) -> bool:
    """Whether two policies are built alike, so that what a probe of one found holds for both: the same modules, the same
    config, the same attention. Only weights, and the names they go by, may differ."""
    built = [[type(module) for module in policy.model.modules()] for policy in (one, other)]
    told = [policy.plain_model.config.to_dict() for policy in (one, other)]
    configs = [{k: v for k, v in x.items() if not k.startswith("_") and k not in NAMES} for x in told]
    return built[0] == built[1] and configs[0] == configs[1] and one.attention == other.attention


def _wrong(policy: TextPolicy, path: ScoringPath, example: Example) -> str | None:
    """What is wrong with a path, or None."""
    contexts, responses = example
    device, low = policy.device.type, next(policy.parameters()).dtype not in (torch.float32, torch.float64)
    plain_path = ScoringPath("padded", "logits")
    policy.follow(plain_path)
    padded = policy.plainly(*example)["logp"]
    try:
        for autocast in sorted({False, torch.is_autocast_enabled(device)}):
            with torch.autocast(device, torch.get_autocast_dtype(device), enabled=autocast):
                policy.follow(plain_path)
                rows = [policy.plainly([x], [ys])["logp"] for x, ys in zip(contexts, responses, strict=True)]
                plain = [logp[k, : len(y)] for logp, ys in zip(rows, responses, strict=True) for k, y in enumerate(ys)]
                other = policy.plainly([contexts[0] + 1], [responses[0]])["logp"]
                policy.follow(path)
                ours = _pieces(policy(contexts, responses)["logp"], responses)
            error = max(float((a - b).abs().max()) for a, b in zip(ours, plain, strict=True))
            moved = float((other - rows[0]).abs().max())
            if not error <= (ROUGH if autocast or low else min(EXACT, TOLD * moved)):
                return f"a token's log-prob is {error:.2g} off the plain one"
        changed = [[responses[0][0] + 1, *responses[0][1:]], *responses[1:]]
        ours, theirs = (_pieces(policy(contexts, ys)["logp"], ys) for ys in (responses, changed))
        apart = [not torch.equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True)]
        if any(apart):
            return "another response's tokens change a response's log-probs"
        if not torch.equal(policy.plainly(*example)["logp"], padded):
            return "the model's own attention is not what it was"
        if (
            path.kernel != "blocks"
            and not (bent := _bent(policy, path, example)) <= BENT[low or torch.is_autocast_enabled(device)]
        ):
            return f"gradients are {bent:.2g} of their length off"
    except WRONG as error:
        return f"{type(error).__name__}: {brief(str(error), 200)}"
    return None


def _decodes(policy: TextPolicy, path: ScoringPath, example: Example) -> bool:
    """Whether answers to prompts that are kept once have the logits that the model's own cache gives them, token by token,
    also after one of them has ended."""
    device, low = policy.device.type, next(policy.parameters()).dtype not in (torch.float32, torch.float64)
    contexts, (answers, *_) = example
    fed = torch.stack([y[:5] for y in (answers[0], answers[1], answers[1], answers[0])]).to(policy.device)
    stay = torch.tensor([0, 2, 3], device=policy.device)
    try:
        for autocast in sorted({False, torch.is_autocast_enabled(device)}):
            with torch.autocast(device, torch.get_autocast_dtype(device), enabled=autocast):
                said: list[list[Tensor]] = []
                for reader in (Plain, Shared):
                    policy.follow(path)
                    going, z = reader.begin(policy, contexts, 2, 5)
                    seen = [z]
                    for step in range(5):
                        if step == 2:
                            going.keep(stay)
                        seen.append(going.read((fed if step < 2 else fed[stay])[:, step]))
                    said.append([z.double().log_softmax(-1) for z in seen])
            error = max(float((a - b).abs().max()) for a, b in zip(*said, strict=True))
            if not error <= (ROUGH if autocast or low else EXACT):
                return False
    except WRONG:
        return False
    return True


def _bent(policy: TextPolicy, path: ScoringPath, example: Example) -> float:
    """How far the gradient through a kernel is from the one block by block, as a share of its length."""
    parameters = [p for _, p in policy.named_trainable()]
    slopes: list[tuple[Tensor, ...]] = []
    for kernel in ("blocks", path.kernel):
        policy.follow(replace(path, kernel=kernel))
        with torch.enable_grad():
            total = policy(*example)["logp"].sum()
            slopes.append(torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))
    off = sum(float((a - b).float().square().sum()) for a, b in zip(*slopes, strict=True))
    return (off / sum(float(a.float().square().sum()) for a in slopes[0])) ** 0.5 if parameters else 0.0


def _head(policy: TextPolicy, tokens: Tensor) -> ScoringPath:
    """Whether the body's hidden states and the output embedding give the model's logits, and through which scale and cap.
    The embedding's output is replaced on the way by numbers large enough that no cap can hide."""
    model, own = policy.plain_model, ScoringPath("padded", "logits")
    head, body = model.get_output_embeddings(), model.base_model
    if type(head) is not nn.Linear or body is model:
        return replace(own, said="the output embedding is no plain linear layer")
    numbers = _numbers(policy, (*SCALES, CAP))
    cap = numbers.pop(CAP, None)
    seen: list[Tensor] = []
    large: list[Tensor] = []

    def replaced(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        make = torch.Generator().manual_seed(0)
        seen.append(given[0])
        large.append((3 * (cap or 10) * torch.randn(made.shape, generator=make)).to(made))
        return large[0]

    tokens = tokens[None].to(policy.device)
    hook = head.register_forward_hook(replaced)
    try:
        z = model(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
    hidden = body(input_ids=tokens, use_cache=False).last_hidden_state
    if len(seen) != 1 or not torch.equal(seen[0], hidden):
        return replace(own, said="the output embedding reads something else than the body's last hidden state")
    for scale in dict.fromkeys([1.0, *(y for x in numbers.values() if x for y in (x, 1 / x))]):
        for bound in dict.fromkeys([None, cap]):
            x = large[0].double() * scale
            x = x if bound is None else bound * torch.tanh(x / bound)
            if torch.allclose(x.to(z), z, rtol=1e-5 if z.dtype == torch.float32 else 1e-2, atol=0):
                return ScoringPath("padded", "hidden", scale, bound)
    return replace(own, said="logits are made from the output embedding in a way we do not know")


def _example(policy: TextPolicy, long: int) -> Example:
    """Two rows: a prompt past every window that can matter, with three responses (one of a single token), and a short one
    with so many that prompt and responses attend in parts."""
    vocabulary = len(policy.plain_model.get_input_embeddings().weight) - 1  # so that token + 1 is one too
    make = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(vocabulary, (n,), generator=make)  # noqa: E731
    return [draw(long), draw(2)], [[draw(n) for n in (6, 8, 1)], [draw(20) for _ in range(4)]]


def _pieces(logp: Tensor, responses: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [row[: len(y)] for row, y in zip(logp, (y for ys in responses for y in ys), strict=True)]


def _numbers(policy: TextPolicy, names: Sequence[str]) -> dict[str, float]:
    """The numbers that the model's config has under these names."""
    config = policy.plain_model.config.get_text_config().to_dict()
    found = {name: config.get(name) for name in names}
    return {name: float(x) for name, x in found.items() if isinstance(x, int | float) and not isinstance(x, bool)}

"""Fast ways of reading responses against the plainest there is: one response, no padding, log_softmax in float64. What is not
right for a model is not taken, and the model's own attention stays as it was."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaModel

from architectures import PADDED, SHARING, SIZE, TOKENIZER, WINDOW, built
from penchant.domains.base import Cost, Encoded, Sparse, Want
from penchant.domains.text import logits
from penchant.domains.text.domain import Text
from penchant.domains.text.paths import ScoringPath, probe
from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.tree import Block, pack
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.objectives import DPO, Lists, Pairs
from penchant.objectives.base import zeros
from test_engine import FP32
from test_logits import EVERY, VALUES, Watch, definitions, taught, told
from tiny import tiny_llama

CPU = torch.device("cpu")


def ids(n: int, seed: int) -> Tensor:
    return torch.randint(SIZE, (n,), generator=torch.Generator().manual_seed(seed))


def rows(*shapes: tuple[int, tuple[int, ...]]) -> Encoded:
    """Lists of responses: (tokens of the prompt, tokens of each response) for every row."""
    contexts = tuple(ids(n, i) for i, (n, _) in enumerate(shapes))
    responses = tuple(tuple(ids(m, 100 * (i + 1) + k) for k, m in enumerate(ms)) for i, (_, ms) in enumerate(shapes))
    gain = torch.zeros(sum(len(ms) for _, ms in shapes))
    said = tuple(tuple(taught(len(y), SIZE, 3 + len(ys), seed=k) for k, y in enumerate(ys)) for ys in responses)
    return Encoded(Lists, contexts, responses, tuple(range(1, len(shapes) + 1)), {"gain": gain}, advantages=said)


ROWS = rows((11, (9, 4)), (3, (1, 12, 5)), (17, (7,)), (1, (4, 4, 4, 4, 4)))
DOMAIN = Text(TOKENIZER, eos=[2])


def policy_of(name: str) -> TextPolicy:
    """The policy, holding another model of its kind as its reference."""
    policy = TextPolicy(built(name), TOKENIZER, stops=[2])
    policy.hold(TextPolicy(built(name, seed=1), TOKENIZER, stops=[2]))
    return policy


def defined(model: Any, other: Any, some: Encoded) -> list[dict[str, Tensor]]:
    """Every value of every response, from the definitions in float64."""
    out = []
    for (context, answer), teacher in zip(some.flat, (x for row in some.advantages or () for x in row), strict=True):
        tokens, span = torch.cat([context, answer])[None], slice(len(context) - 1, -1)
        with torch.no_grad():
            theirs = other(input_ids=tokens).logits[0, span]
        out.append(definitions(model(input_ids=tokens).logits[0, span], answer, theirs, teacher))
    return out


def wide(policy: TextPolicy) -> Any:
    """The same model in float64, its experts one by one, for grouped products know no float64."""
    model = copy.deepcopy(policy.plain_model).double()
    if "experts" in str(model):
        model.set_experts_implementation("eager")
    return model


def gradients(loss: Tensor, model: Any) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def uneven(n: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(5))


def shaken(model: Any) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("name", [*SHARING, *PADDED])
def test_every_path_a_model_can_take_gives_the_values_and_gradients_of_the_definitions(name: str):
    policy = policy_of(name)
    double, other = wide(policy), wide(policy._held[0])
    found = probe(policy)
    assert (found.name, found.head) == ("tree" if name in SHARING else "padded", "hidden"), found.said
    assert (found.said == "") == (name in SHARING)
    exact = defined(double, other, ROWS)
    weights = {value: uneven(len(ROWS.lengths)) for value in ("logp", *VALUES)}
    loss = sum(weights[v][i] * x.sum() for i, one in enumerate(exact) for v, x in one.items())
    slope = gradients(loss, double)  # pyright: ignore[reportArgumentType]
    names = ("tree", "packed", "padded") if found.name == "tree" else ("padded",)
    paths = [ScoringPath(n, h, found.scale, found.cap) for n in names for h in ("hidden", "logits")]
    for path in paths:
        policy.follow(path)
        scored = DOMAIN.score(policy, ROWS, EVERY)
        tables = {"logp": scored.logp, **scored.values}
        for value, table in tables.items():
            assert table.dtype == torch.float32 and not table[~scored.mask].any()
            for i, one in enumerate(exact):
                torch.testing.assert_close(
                    table[i, : len(one[value])].double(), one[value], rtol=0, atol=1e-4, msg=str(path)
                )
        total = sum((weights[v] * torch.where(scored.mask, x, 0.0).sum(-1)).sum() for v, x in tables.items())
        ours = gradients(total, policy.model).double()  # pyright: ignore[reportArgumentType]
        assert float((ours - slope).norm() / slope.norm()) < 1e-4, path


@pytest.mark.parametrize("name", [*SHARING, *PADDED])
def test_in_bf16_the_probe_decides_alike(name: str):
    policy = TextPolicy(built(name), TOKENIZER)
    with torch.autocast("cpu", torch.bfloat16):
        assert probe(policy).name == ("tree" if name in SHARING else "padded")
    assert policy.path is None, "probing leaves the policy as it was"


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("path", ["tree", "packed"])
def test_a_responses_tokens_change_no_other_response_by_a_bit(path: Any, bf16: bool):
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    policy.follow(ScoringPath(path, "hidden"))
    some = rows((5, (6,) * 64), (9, (8, 3)))
    answers = (some.responses[0][0] + 1) % SIZE
    changed = Encoded(some.data, some.contexts, ((answers, *some.responses[0][1:]), some.responses[1]), some.numbers)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours, theirs = (DOMAIN.score(policy, x).logp for x in (some, changed))
    assert torch.equal(ours[1:], theirs[1:])
    assert (ours[0] != theirs[0]).any()


def test_the_models_own_attention_is_what_it_was_and_nothing_of_ours_is_saved(tmp_path: Any):
    for name in ("llama", "gemma2, caps and a window"):
        policy, alone = TextPolicy(built(name), TOKENIZER), built(name)
        policy.train()
        alone.eval()
        assert policy.scoring_path.name == "tree"
        tokens, attention = ids(20, 0).view(2, 10), torch.ones(2, 10, dtype=torch.long)
        attention[0, :3] = 0
        for mask in (attention, None):
            ours = policy.model(input_ids=tokens, attention_mask=mask).logits
            assert torch.equal(ours, alone(input_ids=tokens, attention_mask=mask).logits)
        policy.save(tmp_path / name[:5])
        assert "penchant" not in (tmp_path / name[:5] / "config.json").read_text()


# what is not right is not taken ----------------------------------------------------------------------


class Shifted(LlamaModel):
    """Every token also sees the one before it in the sequence, unless it is the first of its own: right for packed rows, wrong
    for a second response after the first."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.embed_tokens.register_forward_hook(self.shift)
        self.at: Tensor | None = None

    def forward(self, *given: Any, **how: Any) -> Any:
        self.at = how.get("position_ids")
        return super().forward(*given, **how)

    def shift(self, module: Any, given: Any, x: Tensor) -> Tensor:
        first = torch.arange(x.shape[1])[None] == 0 if self.at is None else self.at == 0
        return x + 0.3 * torch.where(first[..., None], 0.0, x.roll(1, 1))


class ShiftedForCausalLM(LlamaForCausalLM):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = Shifted(config)
        self.post_init()


def test_where_sharing_is_wrong_but_packing_right_rows_are_packed():
    torch.manual_seed(0)
    policy = TextPolicy(ShiftedForCausalLM(tiny_llama(SIZE).config), TOKENIZER)
    found = policy.scoring_path
    assert found.name == "packed" and "tree: a token's log-prob is" in found.said
    assert "rows packed (tree: a token's log-prob" in str(found)
    scored = DOMAIN.score(policy, ROWS)
    plain = policy.plainly(ROWS.contexts, ROWS.responses)["logp"]
    torch.testing.assert_close(scored.logp, plain, rtol=0, atol=1e-5)


class Bent(LlamaForCausalLM):
    """Makes its logits in a way nobody has heard of."""

    def forward(self, input_ids: Any, position_ids: Any = None, logits_to_keep: Any = 0, **how: Any) -> Any:  # pyright: ignore
        out: Any = super().forward(input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **how)
        out.logits = out.logits + 0.01 * out.logits.square().clamp(max=100)
        return out


def test_a_head_that_is_not_understood_is_left_to_the_model():
    torch.manual_seed(0)
    policy = TextPolicy(Bent(tiny_llama(SIZE).config), TOKENIZER)
    assert policy.scoring_path.head == "logits" and policy.scoring_path.name == "tree"
    assert "logits by the model" in str(policy.scoring_path)
    scored = DOMAIN.score(policy, ROWS)
    torch.testing.assert_close(scored.logp, policy.plainly(ROWS.contexts, ROWS.responses)["logp"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "scale", "cap"),
    [
        ("gemma2, caps and a window", 1.0, 3.0),
        ("cohere, scaled logits", 0.3, None),
        ("granite, divided logits", 1 / 3, None),
        ("phi, a bias on the logits", 1.0, None),
    ],
)
def test_scale_and_cap_are_found_though_logits_are_small(name: str, scale: float, cap: float | None):
    model = built(name)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.02)  # far below every cap, where tanh is a straight line
    found = probe(TextPolicy(model, TOKENIZER))
    assert (found.head, found.scale, found.cap) == ("hidden", pytest.approx(scale), cap)


class Silent(LlamaForCausalLM):
    """Does not say that it takes positions, so it is given none."""

    def forward(self, *given: Any, **how: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(*given, **how)


def test_a_model_that_counts_positions_itself_shares_nothing():
    torch.manual_seed(0)
    policy = TextPolicy(Silent(tiny_llama(SIZE).config), TOKENIZER)
    assert policy.scoring_path.name == "packed", "relative positions are right in rows one after the other"
    scored = DOMAIN.score(policy, ROWS)
    torch.testing.assert_close(scored.logp, policy.plainly(ROWS.contexts, ROWS.responses)["logp"], rtol=0, atol=1e-5)


def test_rows_beyond_what_was_probed_are_padded():
    policy = TextPolicy(built("mistral, a window"), TOKENIZER, longest=WINDOW)
    assert policy.scoring_path == ScoringPath("tree", "hidden", reach=WINDOW, decodes=True)
    short, long = rows((3, (3, 2))), rows((3, (4, 2)))
    assert policy.scoring_path.reaches(short.contexts, short.responses)
    assert not policy.scoring_path.reaches(long.contexts, long.responses)
    for some in (short, long):
        plain = policy.plainly(some.contexts, some.responses)["logp"]
        torch.testing.assert_close(DOMAIN.score(policy, some).logp, plain, rtol=0, atol=1e-5)


def test_a_model_whose_attention_cannot_be_replaced_refuses_a_tree():
    policy = TextPolicy(built("bloom, attention of its own"), TOKENIZER)
    with pytest.raises(Refusal, match="'eager' of a BloomForCausalLM cannot be replaced"):
        policy.follow(ScoringPath("tree", "hidden"))


def test_a_tree_is_never_read_by_another_attention():
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    assert policy.scoring_path.name == "tree"
    again = TextPolicy(policy.model, TOKENIZER)
    assert probe(again).name == "tree"
    with pytest.raises(Refusal, match="attention was changed to 'sdpa'"):
        DOMAIN.score(policy, ROWS)  # probing ends with the model as the second policy found it


# layout, cost, memory --------------------------------------------------------------------------------


def test_a_prompt_is_read_once_and_no_last_token_is():
    layout = pack(ROWS.contexts, ROWS.responses, True, CPU)
    assert layout.tree is not None
    assert layout.tokens.shape[1] == sum(len(x) for x in ROWS.contexts) + sum(n - 1 for n in ROWS.lengths)
    assert layout.tree.blocks[1] == Block(start=22, prompt=3, branches=(0, 11, 4))
    assert layout.positions[0, 22:].tolist()[:18] == [0, 1, 2, *range(3, 14), *range(3, 7)]
    assert layout.source[:9].tolist() == [10, *range(11, 19)] and layout.source[9] == 10
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    expected: dict[Any, list[int]] = {"tree": [22, 18, 23, 16], "packed": [33, 24, 23, 20]}
    for name, sizes in expected.items():
        policy.follow(ScoringPath(name, "hidden"))
        cost = DOMAIN.cost(policy, ROWS)
        assert (cost.sizes, cost.padded) == (sizes, False)
        assert sum(sizes) == pack(ROWS.contexts, ROWS.responses, name == "tree", CPU).tokens.shape[1]
    policy.follow(ScoringPath("padded", "hidden"))
    assert DOMAIN.cost(policy, ROWS) == Cost(ROWS.sizes, padded=True)


def test_many_responses_attend_in_parts_and_no_mask_spans_the_sequence():
    some = rows((20, (30,) * 16), (5, (6, 6)), (40, (9,)))
    layout = pack(some.contexts, some.responses, True, CPU)
    assert layout.tree is not None
    assert [block.splits for block in layout.tree.blocks] == [True, False, False]
    masks = [layout.tree.mask(queries, before, None) for b in layout.tree.blocks for queries, before in b.parts]
    shapes = {None if m is None else tuple(m.shape[2:]) for m in masks}
    assert shapes == {None, (29, 49), (15, 15)}
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    plain = policy.plainly(some.contexts, some.responses)["logp"]
    torch.testing.assert_close(DOMAIN.score(policy, some).logp, plain, rtol=0, atol=1e-5)


def test_micro_batches_are_filled_by_sums_where_nothing_is_padded():
    sizes = [5, 3, 9, 4, 4, 7]
    assert Cost(sizes, padded=False).micro_batches(16) == [[2, 5], [0, 1, 3, 4]]
    assert Cost(sizes, padded=True).micro_batches(16) == [[2], [0, 5], [1, 3, 4]]
    assert Cost([20, 1, 1], padded=False).micro_batches(16) == [[0], [1, 2]]


@pytest.mark.parametrize("want", [Want(), EVERY], ids=told)
def test_the_largest_tensor_does_not_grow_with_vocabulary_times_length(want: Want, monkeypatch: pytest.MonkeyPatch):
    big = 2000
    monkeypatch.setattr(logits, "PRODUCT", 4 * big)
    policy = TextPolicy(tiny_llama(big), TOKENIZER)
    policy.hold(TextPolicy(tiny_llama(big, seed=1), TOKENIZER))
    assert policy.scoring_path.name == "tree"

    def largest(length: int) -> int:
        some = rows((5, (length, length)))
        with Watch() as watch:
            scored = DOMAIN.score(policy, some, want)
            sum((x.sum() for x in scored.values.values()), scored.logp.sum()).backward()
        return watch.floats

    embedding = big * 32
    assert [largest(n) for n in (9, 90)] == [embedding, embedding], "nothing is larger than the embedding and its gradient"
    policy.follow(ScoringPath("tree", "logits"))
    assert largest(90) == 180 * big, "logits of the model itself do grow, and are seen growing"


# through wrappers, adapters and the engine -----------------------------------------------------------


def test_recomputed_layers_see_their_own_tree():
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    policy.train()
    parts = [ROWS.select([0, 1]), ROWS.select([3, 2])]
    loss = lambda: [DOMAIN.score(policy, part).total.square().sum() for part in parts]  # noqa: E731
    expected = [gradients(x, policy.model) for x in loss()]
    policy.plain_model.activation_checkpointing_enable()
    policy.train()
    assert sum(layer.training for layer in policy.plain_model.model.layers) == 2
    for ours, theirs in zip(map(lambda x: gradients(x, policy.model), loss()), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_adapter_and_its_reference_take_the_same_tree():
    from peft import LoraConfig, get_peft_model

    for targets, head in (("all-linear", "hidden"), (["q_proj", "lm_head"], "logits")):
        config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
        with warnings.catch_warnings():  # peft asks transformers by a name that is on its way out
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            model = get_peft_model(tiny_llama(SIZE, tie_word_embeddings=False), config)
        policy = TextPolicy(model, TOKENIZER, "adapter off")
        shaken(policy)
        assert (policy.scoring_path.name, policy.scoring_path.head) == ("tree", head)
        advantages = Sparse.joined([x for row in ROWS.advantages or () for x in row])
        ours = policy(ROWS.contexts, ROWS.responses, EVERY, advantages)
        theirs = policy.plainly(ROWS.contexts, ROWS.responses, EVERY, advantages)
        assert theirs["kl"].max() > 1e-3
        for name, x in theirs.items():
            torch.testing.assert_close(ours[name], x, rtol=1e-4, atol=1e-5)
        with policy.as_reference(), torch.no_grad():
            alone = [policy(ROWS.contexts, ROWS.responses)["logp"], policy.plainly(ROWS.contexts, ROWS.responses)["logp"]]
        torch.testing.assert_close(*alone, rtol=0, atol=1e-5)
        assert (alone[0] - ours["logp"]).abs().max() > 1e-3


def test_a_step_is_the_same_whatever_the_path_the_micro_batches_and_the_order():
    some = rows(*[(3 + 5 * i % 11, (2 + 3 * i % 7, 1 + 5 * i % 9)) for i in range(6)])
    pairs = Encoded(Pairs, some.contexts, some.responses, some.numbers)
    objective = DPO()

    def stepped(path: str, budget: int, order: list[int]) -> Tensor:
        policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
        policy.follow(ScoringPath(path, "hidden"))  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            ref = 1.1 * DOMAIN.score(policy, pairs).logp
        shaken(policy)
        steps = max(pairs.lengths)
        anchor = lambda at: ref[pairs.places(at)][:, : max(pairs.select(at).lengths)]  # noqa: E731
        optimiser = torch.optim.SGD([p for _, p in policy.named_trainable()], lr=0.1)
        step = Step(policy, DOMAIN, objective, optimiser, Accelerator(cpu=True), FP32, tokens=budget, clip=1e9)
        assert steps == ref.shape[1]
        step(Material(pairs, {"ref": anchor}), order, zeros(objective))
        return torch.cat([p.grad.flatten() for _, p in policy.named_trainable() if p.grad is not None])

    expected = stepped("padded", 10_000, list(range(6)))
    for path in ("tree", "packed", "padded"):
        for budget, order in ((1, [0, 1, 2, 3, 4, 5]), (40, [5, 2, 0, 1, 4, 3]), (10_000, [3, 4, 5, 0, 1, 2])):
            found = stepped(path, budget, order)
            assert float((found - expected).norm() / expected.norm()) < 1e-5, (path, budget)

"""Scoring held against the plainest computation there is: one row, no padding, log_softmax in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from penchant.domains.base import Encoded, Want
from penchant.domains.text.domain import Text
from penchant.domains.text.policy import TextPolicy
from penchant.errors import Refusal
from penchant.feedback.records import Row
from penchant.objectives import Pairs
from test_logits import taught
from tiny import CHATML, tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SIZE = len(TOKENIZER)


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=SIZE, n_positions=256, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2, eos_token_id=2)
    )


def gemma2() -> Any:
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=SIZE,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=16,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=5.0,
            initializer_range=0.2,
            eos_token_id=2,
        )
    )


MODELS = {
    "llama, tied embeddings": lambda: tiny_llama(SIZE),
    "llama, untied embeddings": lambda: tiny_llama(SIZE, tie_word_embeddings=False),
    "llama with dropout": lambda: tiny_llama(SIZE, attention_dropout=0.5),
    "gpt2, absolute positions": gpt2,
    "gemma2, soft caps and a sliding window": gemma2,
}


@pytest.fixture(params=list(MODELS))
def policy(request: pytest.FixtureRequest) -> Iterator[TextPolicy]:
    torch.manual_seed(0)
    yield TextPolicy(MODELS[request.param](), TOKENIZER, stops=[2])


def encoded(domain: Text | None = None) -> Encoded:
    long = "the cat sat on the mat and the dog is happy, " * 2
    rows = [
        Row(1, "pairs", "is it good", ("yes", "no thank you, it is a bad day and a bad night")),
        Row(2, "pairs", long, ("what", "the cat")),
        Row(3, "pairs", "a", (long, "")),
    ]
    return (domain or Text(TOKENIZER, eos=[2])).encode(rows)


def naive(policy: TextPolicy, context: Tensor, answer: Tensor) -> Tensor:
    """log π of each answer token, from the model alone."""
    ids = torch.cat([context, answer])
    z = policy.model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    return torch.stack([z[len(context) + t - 1, answer[t]] for t in range(len(answer))])


def gradients(policy: TextPolicy, loss: Tensor) -> list[Tensor]:
    return list(
        torch.autograd.grad(loss, [p for _, p in policy.named_trainable()], allow_unused=True, materialize_grads=True)
    )


def test_scores_and_gradients_are_the_naive_ones_whatever_the_padding(policy: TextPolicy):
    rows = encoded()
    domain = Text(TOKENIZER, eos=[2])
    scored = domain.score(policy, rows)
    assert scored.logp.dtype == torch.float32
    plain = [naive(policy, context, answer) for context, answer in rows.flat]
    for i, expected in enumerate(plain):
        assert scored.logp[i, : len(expected)].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert scored.logp[i, len(expected) :].eq(0).all()
    weights = [1.0, -2.0, 0.5, 3.0, -1.0, 1.5]
    ours = gradients(policy, (scored.total * torch.tensor(weights)).sum())
    theirs = gradients(policy, sum(weight * x.sum() for weight, x in zip(weights, plain, strict=True)))  # pyright: ignore
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1.0, b.abs().max().item()))


def test_the_order_of_rows_changes_nothing(policy: TextPolicy):
    rows, domain = encoded(), Text(TOKENIZER, eos=[2])
    whole = domain.score(policy, rows).total.detach()
    alone = torch.cat([domain.score(policy, rows.select([i])).total.detach() for i in (2, 0, 1)])
    torch.testing.assert_close(alone, whole.view(3, 2)[[2, 0, 1]].flatten(), rtol=0, atol=1e-4)


def test_every_completion_token_once():
    policy, domain = TextPolicy(tiny_llama(SIZE), TOKENIZER), Text(TOKENIZER, eos=[2])
    rows = domain.encode([Row(1, "labelled", "is it good", ("yes the cat",), label=True)])
    answer = rows.responses[0][0]
    assert len(answer) == len(TOKENIZER("yes the cat", add_special_tokens=False).input_ids) + 1
    scored = domain.score(policy, rows)
    assert scored.mask.sum() == len(answer)
    for t in range(len(answer)):
        other = answer.clone()
        other[t] = (other[t] + 7) % SIZE
        changed = domain.score(policy, Encoded(rows.data, rows.contexts, ((other,),), rows.numbers, rows.columns))
        assert changed.total.item() != pytest.approx(scored.total.item(), abs=1e-4)
        assert torch.equal(changed.logp[:, :t], scored.logp[:, :t])


def test_no_prompt_token_is_scored():
    """What is scored is what the logits at the answer's places say, and nothing else."""
    policy, domain = TextPolicy(tiny_llama(SIZE), TOKENIZER), Text(TOKENIZER, eos=[2])
    rows = domain.encode([Row(1, "labelled", "is it good", ("yes",), label=True)])
    context, answer = next(rows.flat)
    z, _ = policy.read(torch.cat([context, answer])[None, :-1], torch.ones(1, len(context) + len(answer) - 1).long(), 999)
    assert z.shape[1] == len(context) + len(answer) - 1
    used = z[0, -len(answer) :]
    expected = used.gather(-1, answer[:, None])[:, 0] - used.logsumexp(-1)
    torch.testing.assert_close(domain.score(policy, rows).logp[0], expected)  # another order of sums in attention


def test_swapping_chosen_and_rejected_negates_the_margin_exactly():
    policy, domain = TextPolicy(tiny_llama(SIZE), TOKENIZER), Text(TOKENIZER, eos=[2])
    rows = encoded(domain)
    swapped = Encoded(Pairs, rows.contexts, tuple((l, w) for w, l in rows.responses), rows.numbers)
    a, b = domain.score(policy, rows).total.view(-1, 2), domain.score(policy, swapped).total.view(-1, 2)
    torch.testing.assert_close(a[:, 0] - a[:, 1], b[:, 1] - b[:, 0], rtol=0, atol=1e-5)


def test_temperature_and_entropy_are_what_their_definitions_say():
    policy, domain = TextPolicy(tiny_llama(SIZE), TOKENIZER), Text(TOKENIZER, eos=[2])
    rows = encoded(domain).select([0])
    scored = domain.score(policy, rows, Want(values=frozenset({"entropy"}), temperature=0.7))
    context, answer = next(rows.flat)
    z = policy.model(input_ids=torch.cat([context, answer])[None]).logits[0, len(context) - 1 : -1].double() / 0.7
    p = z.softmax(-1)
    assert scored.logp[0, : len(answer)].tolist() == pytest.approx(
        z.log_softmax(-1).gather(-1, answer[:, None])[:, 0].tolist(), abs=1e-5
    )
    entropy = scored.value("entropy")
    assert entropy[0, : len(answer)].tolist() == pytest.approx((-(p * p.log()).sum(-1)).tolist(), abs=1e-5)
    assert entropy[0, len(answer) :].eq(0).all()
    assert any(g.abs().sum() > 0 for g in gradients(policy, entropy.sum()))


def test_dropout_stays_off_in_training_and_checkpointed_layers_give_the_same_gradient():
    torch.manual_seed(0)
    domain, rows = Text(TOKENIZER, eos=[2]), encoded()
    policy = TextPolicy(tiny_llama(SIZE, attention_dropout=0.5), TOKENIZER)
    policy.train()
    assert policy.training
    plain = gradients(policy, domain.score(policy, rows).total.sum())
    policy.plain_model.activation_checkpointing_enable()
    policy.train()
    assert sum(layer.training for layer in policy.plain_model.model.layers) == 2
    for a, b in zip(plain, gradients(policy, domain.score(policy, rows).total.sum()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_policy_wrapped_for_many_machines_gives_the_same_numbers_and_gradients():
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore
    from torch.nn.parallel import DistributedDataParallel

    domain, rows = Text(TOKENIZER, eos=[2]), encoded()
    policy = TextPolicy(tiny_llama(SIZE), TOKENIZER)
    alone = domain.score(policy, rows)
    expected = gradients(policy, alone.total.sum())
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(policy)
        scored = domain.score(wrapped, rows)
        assert torch.equal(scored.logp, alone.logp)
        scored.total.sum().backward()
    finally:
        dist.destroy_process_group()
    for (_, p), g in zip(policy.named_trainable(), expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, g)


def test_nothing_to_score_gives_nothing_and_a_response_without_tokens_is_refused():
    policy, domain = TextPolicy(tiny_llama(SIZE), TOKENIZER), Text(TOKENIZER, eos=[2])
    empty = domain.score(policy, encoded(domain).select([]), Want(values=frozenset({"entropy"})))
    assert empty.logp.shape == (0, 0) and empty.value("entropy").shape == (0, 0)
    one = torch.tensor([5])
    with pytest.raises(Refusal, match="without tokens"):
        domain.score(policy, Encoded(Pairs, (one,), ((one, one[:0]),), (1,)))
    with pytest.raises(Refusal, match=r"has no value 'entropie'.*did you mean 'entropy'"):
        domain.score(policy, encoded(domain), Want(values=frozenset({"entropie"})))
    with pytest.raises(Refusal, match=r"has no value 'mass/0'.*most probable tokens there are entropy/K, mass/K"):
        domain.score(policy, encoded(domain), Want(values=frozenset({"mass/0"})))
    wanted = Want(values=frozenset({"advantage"}))
    with pytest.raises(Refusal, match="'advantage' reads a teacher's, but these rows have none"):
        domain.score(policy, encoded(domain), wanted)
    short = replace(encoded(domain), advantages=tuple((taught(1, SIZE),) * 2 for _ in range(3)))
    with pytest.raises(Refusal, match=r"row 1: the teacher's advantages are of 1 steps, the response of \d+"):
        domain.score(policy, short, wanted)


def test_a_model_without_a_template_reads_the_prompt_as_it_stands():
    domain = Text(tiny_tokenizer(None, eos_token="<|endoftext|>"))
    context, answer = next(domain.encode([Row(1, "labelled", "is it", (" good",), label=True)]).flat)
    assert domain.chat.tokenizer.decode(torch.cat([context, answer])) == "is it good<|endoftext|>"
    assert CHATML not in str(domain.chat.tokenizer.chat_template)

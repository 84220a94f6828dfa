"""What sampling promises: the model's own distribution, seeds, stop tokens, and log-probs that training would give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from architectures import PADDED, SHARING, TOKENIZER, built
from penchant.domains.text import sampling
from penchant.domains.text.domain import Text
from penchant.domains.text.policy import TextPolicy
from penchant.domains.text.products import laid_out
from penchant.engine.precision import TOLERANCE
from penchant.errors import Refusal
from tiny import tiny_llama

STOPS = [2, 60, 90, 120, 150]
"""Enough that answers end at different times."""
PROMPTS = ["is it good", "the cat sat on the mat, and the dog is happy", "a"]


@pytest.fixture
def policy() -> TextPolicy:
    return TextPolicy(tiny_llama(len(TOKENIZER)), TOKENIZER, stops=[2])


@pytest.fixture
def domain() -> Text:
    return Text(TOKENIZER, eos=[2], positions=512)


def ids(samples) -> list[list[list[int]]]:
    return [[answer.tolist() for answer in row] for row in samples.encoded.responses]


@pytest.mark.parametrize("name", [*SHARING, *PADDED])
def test_greedy_tokens_of_a_batch_are_those_of_transformers_generate_alone(name: str):
    policy, domain = TextPolicy(built(name), TOKENIZER, stops=STOPS), Text(TOKENIZER, eos=STOPS)
    assert policy.scoring_path.decodes == (name in SHARING)
    samples = domain.sample(policy, PROMPTS, count=2, limit=20, temperature=0.0, scored=False)
    for context, (answer, again) in zip(samples.encoded.contexts, samples.encoded.responses, strict=True):
        settings = {"do_sample": False, "max_new_tokens": 20, "eos_token_id": sorted(domain.chat.stops), "pad_token_id": 0}
        plain = policy.plain_model.generate(context[None], attention_mask=torch.ones_like(context)[None], **settings)
        assert answer.tolist() == again.tolist() == plain[0, len(context) :].tolist()


def test_samples_are_the_same_where_a_prompt_is_kept_once_and_where_every_answer_has_its_own():
    policy = TextPolicy(built("gemma2, caps and a window"), TOKENIZER, stops=STOPS)
    domain = Text(TOKENIZER, eos=STOPS)
    shared = domain.sample(policy, PROMPTS, count=5, limit=24, seed=3)
    policy.follow(replace(policy.scoring_path, decodes=False))
    plain = domain.sample(policy, PROMPTS, count=5, limit=24, seed=3)
    assert ids(shared) == ids(plain)
    assert len({len(answer) for row in ids(shared) for answer in row}) > 5  # answers ended at many different times
    assert shared.drawn is not None and plain.drawn is not None and plain.logp is not None
    torch.testing.assert_close(shared.drawn.logp, plain.drawn.logp, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared.drawn.logp, plain.logp.logp, atol=1e-5, rtol=0)


@pytest.mark.parametrize("half", [False, True])
def test_a_weight_that_is_laid_out_multiplies_as_before_and_is_put_back(policy: TextPolicy, half: bool):
    x = torch.randn(5, 32)
    layer = policy.plain_model.model.layers[0].mlp.gate_proj
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        plain = layer(x)
        with laid_out(policy.plain_model):
            assert "forward" in vars(layer)
            assert layer(x).dtype == plain.dtype
            torch.testing.assert_close(layer(x), plain, atol=0.02 if half else 1e-5, rtol=0)
    assert "forward" not in vars(layer)


def test_samples_in_half_precision_are_those_that_training_scores_but_for_its_rounding(policy: TextPolicy, domain: Text):
    with torch.autocast("cpu", torch.bfloat16):
        samples = domain.sample(policy, PROMPTS, count=4, limit=12, seed=1)
    assert samples.drawn is not None and samples.logp is not None
    apart = (samples.drawn.logp - samples.logp.logp).abs()[samples.drawn.mask]
    assert 0 < apart.mean() < 0.05 and apart.max() < TOLERANCE["bf16"]


def test_a_prompt_gets_the_same_answers_whatever_else_is_in_the_batch(policy: TextPolicy, domain: Text):
    together = ids(domain.sample(policy, PROMPTS, count=3, limit=12, seed=5))
    assert ids(domain.sample(policy, PROMPTS, count=3, limit=12, seed=5, batch=1)) == together
    assert ids(domain.sample(policy, PROMPTS[:1], count=2, limit=12, seed=5))[0] == together[0][:2]
    assert ids(domain.sample(policy, PROMPTS, count=3, limit=12, seed=6)) != together
    assert len({tuple(answer) for answer in together[0]}) == 3
    torch.manual_seed(99)
    assert ids(domain.sample(policy, PROMPTS, count=3, limit=12, seed=5)) == together


def test_log_probs_are_the_samplers_own_at_temperature_1_and_what_training_scores(
    policy: TextPolicy, domain: Text, monkeypatch: pytest.MonkeyPatch
):
    steps: list[float] = []
    pick = sampling.pick

    def recorded(z, noise, temperature, top_p):
        token, said = pick(z, noise, temperature, top_p)
        steps.append(z.double().log_softmax(-1)[0, token[0]].item())
        return token, said

    monkeypatch.setattr(sampling, "pick", recorded)
    samples = domain.sample(policy, PROMPTS[:1], limit=15, temperature=0.6, top_p=0.9)
    assert samples.logp is not None
    assert samples.drawn is not None
    assert samples.drawn.logp[0].tolist() == pytest.approx(steps, abs=1e-5)
    assert samples.logp.logp[0].tolist() == pytest.approx(steps, abs=1e-5)
    assert torch.equal(samples.logp.logp, domain.score(policy, samples.encoded).logp.detach())
    assert policy.training
    assert domain.sample(policy, PROMPTS[:1], limit=2, scored=False).logp is None


def test_log_probs_stand_in_the_order_of_the_prompts(policy: TextPolicy, domain: Text):
    samples = domain.sample(policy, PROMPTS, count=2, limit=6, batch=60)
    assert samples.logp is not None
    torch.testing.assert_close(samples.logp.total, domain.score(policy, samples.encoded).total.detach(), atol=1e-5, rtol=0)


def test_an_answer_ends_in_one_stop_token_or_was_cut_at_the_limit(policy: TextPolicy, domain: Text):
    with torch.no_grad():  # a model that likes to stop
        policy.plain_model.model.embed_tokens.weight[2] *= 3
    samples = domain.sample(policy, PROMPTS, count=20, limit=12)
    endings = {True: 0, False: 0}
    for row, stopped, texts in zip(samples.encoded.responses, samples.stopped, samples.texts, strict=True):
        for answer, ended, text in zip(row, stopped, texts, strict=True):
            endings[ended] += 1
            assert (answer == 2).sum() == int(ended)
            assert ended == (answer[-1] == 2) and (ended or len(answer) == 12)
            assert "<|im_end|>" not in text
    assert min(endings.values()) > 5


def test_first_tokens_are_drawn_as_often_as_the_model_says(policy: TextPolicy, domain: Text):
    n = 4000
    samples = domain.sample(policy, ["is it"], count=n, limit=1, temperature=0.5)
    context = samples.encoded.contexts[0]
    z = policy.plain_model(input_ids=context[None]).logits[0, -1].double()
    p = (z / 0.5).softmax(-1)
    seen = torch.stack([answer[0] for answer in samples.encoded.responses[0]]).bincount(minlength=len(p)) / n
    error = (p * (1 - p) / n).sqrt()
    likely = p > 5 / n
    assert likely.sum() > 5
    assert ((seen - p).abs() < 4.5 * error + 1e-9)[likely].all()


def test_top_p_keeps_the_fewest_likeliest_tokens_that_reach_it():
    z = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(1000, 4)
    noise = torch.linspace(0, 0.9999, 1000, dtype=torch.float64)
    drawn = sampling.pick(z, noise, 1.0, 0.7)[0].bincount(minlength=4)
    assert drawn.tolist() == pytest.approx([625, 375, 0, 0], abs=1)
    assert sampling.pick(z, noise, 1.0, 1.0)[0].bincount(minlength=4).tolist() == pytest.approx([500, 300, 150, 50], abs=1)
    assert sampling.pick(z, noise, 0.0, 1.0)[0].unique().tolist() == [0]


def test_a_prompt_without_room_for_an_answer_is_refused_by_its_number(policy: TextPolicy, domain: Text):
    with pytest.raises(Refusal, match=r"prompt 2 \('the the .*passes the 512 positions"):
        domain.sample(policy, ["hi", "the " * 600])
    with pytest.raises(Refusal, match="temperature"):
        domain.sample(policy, ["hi"], temperature=-1.0)

"""Rounds of sampling, judging and pairing, with a domain of eight words so that every number can be seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Want, masks
from penchant.domains.text.models import load
from penchant.errors import Refusal
from penchant.feedback.pairing import How
from penchant.feedback.reading import open_source
from penchant.feedback.records import Prompt, Row
from penchant.objectives.scored import Pairs, Rollouts, Scored
from penchant.rewards.base import Context, Judgement
from penchant.rewards.function import FunctionJudge
from penchant.rewards.rules import LengthRepetition
from penchant.rollouts.pairs import PairSet, make_pairs
from penchant.rollouts.prompts import TRAIN, UNSEEN, contexts_of, demo_prompts
from penchant.rollouts.round import Round, rollout

WORDS = ("stop", "the", "a", "good", "bad", "day", "night", "ends")


class Words:
    """A domain whose tokens are eight words and whose policy is uniform; id 0 ends a response."""

    name, noisy = "words", False

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def encode(self, rows: Iterable[Row]) -> Encoded:
        rows = list(rows)
        context = [torch.tensor([len(w) + self.shift for w in str(row.prompt).split()]) for row in rows]
        return Encoded(Pairs, tuple(context), ((),) * len(rows), tuple(row.number for row in rows))

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = Want()) -> Scored:  # noqa: B008
        raise NotImplementedError("a round scores nothing again")

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Any],
        *,
        count: int = 1,
        limit: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        sampler: Any = None,
    ) -> Samples:
        random = torch.Generator().manual_seed(seed)
        drawn = [[self.draw(random, limit) for _ in range(count)] for _ in contexts]
        return sampled(self.encode(Row(i + 1, "prompts", prompt) for i, prompt in enumerate(contexts)), drawn)

    def draw(self, random: torch.Generator, limit: int) -> Tensor:
        ids = torch.randint(len(WORDS), (limit,), generator=random)
        stops = (ids == 0).nonzero()
        return ids[: int(stops[0]) + 1] if len(stops) else ids

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        raise NotImplementedError("a round scores nothing again")

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        raise NotImplementedError("a round recombines nothing")


def sampled(prompts: Encoded, drawn: Sequence[Sequence[Tensor]]) -> Samples:
    """Samples of the given ids, every step as likely as any other."""
    counts = sum(len(group) for group in drawn)
    nan = torch.full((counts,), torch.nan)
    responses = tuple(tuple(group) for group in drawn)
    encoded = Encoded(Rollouts, prompts.contexts, responses, prompts.numbers, {"reward": nan, "advantage": nan.clone()})
    mask = masks(encoded.lengths)
    logp = torch.where(mask, torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)).log(), 0.0)
    texts = tuple(tuple(" ".join(WORDS[i] for i in y if i) for y in group) for group in drawn)
    stopped = tuple(tuple(bool(y[-1] == 0) for y in group) for group in drawn)
    return Samples(encoded, texts, stopped, Scored(logp, mask))


def goodness(prompt: Prompt, response: str) -> float:
    return float(response.split().count("good") - response.split().count("bad"))


POLICY = nn.Identity()
PROMPTS = ["say something", "tell me more of it", "and then"]


def a_round(seed: int = 3, **changed: Any) -> Round:
    return rollout(Words(), POLICY, PROMPTS, FunctionJudge(goodness), **{"count": 4, "limit": 6, "seed": seed, **changed})


def paired(scores: Sequence[Sequence[float]], how: How, texts: Sequence[Sequence[Sequence[int]]] | None = None) -> PairSet:
    """Pairs from given scores; response i of a prompt is the word i + 1 and the stop, unless ids are given."""
    drawn = texts or [[[i + 1, 0] for i in range(len(group))] for group in scores]
    ids = [[torch.tensor(y) for y in group] for group in drawn]
    contexts = [Context(f"prompt {'x' * i}") for i in range(len(scores))]
    rows = (Row(10 * (i + 1), "prompts", context.prompt) for i, context in enumerate(contexts))
    reward = torch.tensor([[s] for group in scores for s in group])
    return make_pairs(contexts, sampled(Words().encode(rows), ids), Judgement(reward, reward[:, 0] < 9), how)


def told(pairs: PairSet) -> list[tuple[int, int, int, float]]:
    """(prompt number, word of the chosen, word of the rejected, margin) of every pair."""
    margins = pairs.encoded.columns["margin"].tolist()
    return [
        (number, int(w[0]), int(l[0]), round(margin, 4))
        for number, (w, l), margin in zip(pairs.encoded.numbers, pairs.encoded.responses, margins, strict=True)
    ]


def test_best_and_worst_of_each_prompt_make_a_pair_and_a_tie_makes_none() -> None:
    pairs = paired([[0.5, 2.0, -1.0], [1.0, 1.0, 1.0], [0.0, 0.25, 0.25]], "best-worst")
    assert told(pairs) == [(10, 2, 3, 3.0), (30, 2, 1, 0.25)]
    assert (pairs.kept, pairs.ties, pairs.failed) == (2, 1, 0)
    assert pairs.encoded.accounting.read == 3 and pairs.encoded.accounting.dropped == {"all scores equal": 1}


def test_all_pairs_leave_out_ties_only() -> None:
    pairs = paired([[0.0, 2.0, 2.0, 1.0]], "all")
    assert sorted(told(pairs)) == [(10, 2, 1, 2.0), (10, 2, 4, 1.0), (10, 3, 1, 2.0), (10, 3, 4, 1.0), (10, 4, 1, 1.0)]


def test_ranked_pairs_join_each_response_with_the_next_best() -> None:
    assert sorted(told(paired([[0.0, 3.0, 1.0]], "ranked"))) == [(10, 2, 3, 2.0), (10, 3, 1, 1.0)]


def test_a_failed_judgement_leaves_out_its_whole_prompt() -> None:
    pairs = paired([[0.0, 9.0, 1.0], [1.0, 2.0, 0.0]], "best-worst")
    assert told(pairs) == [(20, 2, 3, 2.0)]
    assert (pairs.kept, pairs.ties, pairs.failed) == (1, 0, 1)


def test_one_response_scored_twice_is_no_pair() -> None:
    pairs = paired([[0.0, 1.0]], "best-worst", [[[5, 0], [5, 0]]])
    assert (pairs.kept, pairs.identical) == (0, 1)


def test_an_empty_response_is_learned_from_but_not_written_into_a_file() -> None:
    pairs = paired([[1.0, 0.0], [1.0, 0.0]], "best-worst", [[[5, 0], [0]], [[5, 0], [6, 0]]])
    assert pairs.kept == len(pairs.encoded) == 2
    assert [(row["chosen"], row["rejected"]) for row in pairs.rows] == [("day", "night")]


def test_pairs_are_the_sampled_ids_and_the_rows_tell_the_same() -> None:
    made = a_round()
    pool = {id(y) for group in made.samples.encoded.responses for y in group}
    assert made.pairs.kept > 0
    assert all(id(y) in pool for _, y in made.pairs.encoded.flat)
    for row, (w, l), margin in zip(
        made.pairs.rows, made.pairs.encoded.responses, made.pairs.encoded.columns["margin"].tolist(), strict=True
    ):
        assert row["chosen"] == " ".join(WORDS[i] for i in w if i) and row["rejected_stopped"] == bool(l[-1] == 0)
        assert row["chosen_score"] - row["rejected_score"] == margin > 0
        assert row["prompt"] in PROMPTS and row["round"] == 1
    batch = made.pairs.encoded.blank()
    assert isinstance(batch, Pairs) and batch.size("pair") == made.pairs.kept


def test_chat_prompts_give_chat_rows_and_annotators_stay_with_their_pairs() -> None:
    turns = ({"role": "user", "content": "Good day?"},)
    contexts = [Context(turns, annotator="ada"), Context(turns, annotator="ben"), Context("Bad day?")]  # pyright: ignore[reportArgumentType]
    made = rollout(Words(), POLICY, contexts, FunctionJudge(goodness), count=8, limit=8)
    row = made.pairs.rows[0]
    assert row["prompt"] == [dict(turns[0])] and row["chosen"][0]["role"] == "assistant"
    names = [*made.pairs.encoded.annotators, None]  # −1 is nobody
    people = [names[int(i)] for i in made.pairs.encoded.columns["annotator"]]
    assert people == [row.get("annotator") for row in made.pairs.rows] == ["ada", "ben", None]


def test_scores_are_written_as_people_write_them() -> None:
    row = paired([[0.8316, 0.1]], "best-worst").rows[0]
    assert (row["chosen_score"], row["rejected_score"]) == (0.8316, 0.1)


def test_a_round_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    once, again, other = a_round(), a_round(), a_round(seed=4)
    assert once.pairs.rows == again.pairs.rows != other.pairs.rows


def test_the_statistics_of_a_round_are_those_of_its_samples() -> None:
    made = a_round()
    texts = [text for group in made.samples.texts for text in group]
    lines = made.statistics
    assert lines["score"] == pytest.approx(sum(goodness("", text) for text in texts) / 12)
    assert lines["kept"] + lines["ties"] == 3 and lines["failed"] == 0
    grams = [gram for text in texts for gram in zip(text.split(), text.split()[1:], strict=False)]
    assert lines["distinct2"] == pytest.approx(len(set(grams)) / len(grams))
    assert lines["length"] == pytest.approx(sum(made.samples.encoded.lengths) / 12)
    assert 0 < lines["stopped"] < 1 and 0 < lines["sampling"] <= 1
    json.dumps(lines, allow_nan=False)


def test_the_statistics_name_every_dimension_of_a_sum_of_judges() -> None:
    judge = FunctionJudge(goodness) + LengthRepetition(target=3)
    lines = rollout(Words(), POLICY, PROMPTS, judge, count=2, limit=4).statistics
    parts = [lines["score/goodness"], lines["score/rules(target=3)/length"], lines["score/rules(target=3)/repetition"]]
    assert lines["score"] == pytest.approx(sum(parts)) and parts[1] < 0


def test_a_round_saved_and_loaded_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    def moody(prompt: Prompt, response: str) -> float:
        if prompt == "say something" and "night" in response:
            raise RuntimeError("too dark")
        return len(response) / 3

    contexts = [Context("say something", "ada", {"source": 7}), Context("and \ud800 then \u2028 this\x85", "ben")]
    made = rollout(
        Words(), POLICY, contexts, FunctionJudge(moody), count=5, limit=7, seed=2, how="all", number=4, scored=True
    )
    made.save(tmp_path / "round.jsonl")
    back = Round.load(tmp_path / "round.jsonl", Words())
    before, after = made.samples, back.samples
    assert not made.judgement.valid.all() and made.pairs.kept > 0
    assert all(map(torch.equal, before.encoded.contexts, after.encoded.contexts))
    for (_, one), (_, two) in zip(before.encoded.flat, after.encoded.flat, strict=True):
        assert torch.equal(one, two)
    assert before.logp is not None and after.logp is not None
    assert torch.equal(before.logp.logp, after.logp.logp) and torch.equal(before.logp.mask, after.logp.mask)
    assert torch.equal(made.judgement.valid, back.judgement.valid)
    assert torch.equal(made.judgement.total.nan_to_num(-9), back.judgement.total.nan_to_num(-9))
    assert (before.texts, before.stopped) == (after.texts, after.stopped)
    assert (made.contexts, made.sampling, made.judge, made.number) == (
        back.contexts,
        back.sampling,
        back.judge,
        back.number,
    )
    assert made.pairs.rows == back.pairs.rows
    assert made.statistics == back.statistics


def test_a_language_models_round_is_trained_on_as_it_was_sampled(tiny_folder: Path, tmp_path: Path) -> None:
    loaded = load(str(tiny_folder))
    domain, policy = loaded.domain, loaded.policy
    contexts = [Context("a night train"), Context(({"role": "user", "content": "how was it?"},))]  # pyright: ignore
    letters = FunctionJudge(lambda prompt, response: float(sum(ch.isalpha() for ch in response)), "letters")
    made = rollout(domain, policy, contexts, letters, count=6, limit=12, seed=1, how="all", scored=True)
    assert made.pairs.kept > 4
    assert made.samples.logp is not None
    # The sampler and the trainer agree on the log-probs of the very same ids.
    flat = {
        y.numpy().tobytes(): x[m]
        for (_, y), x, m in zip(made.samples.encoded.flat, made.samples.logp.logp, made.samples.logp.mask, strict=True)
    }
    with torch.no_grad():
        scored = domain.score(policy, made.pairs.encoded)
    for (_, y), x, m in zip(made.pairs.encoded.flat, scored.logp, scored.mask, strict=True):
        assert torch.allclose(x[m], flat[y.numpy().tobytes()], atol=1e-5)
    # A round comes back from its file under the same model, and its rows are feedback that reads.
    made.save(tmp_path / "round.jsonl")
    assert Round.load(tmp_path / "round.jsonl", domain).pairs.rows == made.pairs.rows
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made.pairs.rows))
    source = open_source(tmp_path / "pairs.jsonl")
    assert source.kind == "pairs" and len(source) == len(made.pairs.rows) > 4


def test_a_round_of_another_tokenizer_and_a_file_that_is_no_round_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "round.jsonl"
    a_round().save(path)
    with pytest.raises(Refusal, match="encodes otherwise"):
        Round.load(path, Words(shift=1))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Refusal, match="not a whole"):
        Round.load(path, Words())
    path.write_text("{")
    with pytest.raises(Refusal, match="is not a round"):
        Round.load(path, Words())
    with pytest.raises(Refusal, match="no round at"):
        Round.load(tmp_path / "absent.jsonl", Words())


def test_what_cannot_make_pairs_is_refused_before_anything_is_sampled() -> None:
    with pytest.raises(Refusal, match="at least 2"):
        a_round(count=1)
    with pytest.raises(Refusal, match="larger than 0"):
        a_round(temperature=0.0)
    with pytest.raises(Refusal, match="no prompt"):
        rollout(Words(), POLICY, [], FunctionJudge(goodness))


def test_a_judge_that_always_fails_stops_the_round_and_says_why() -> None:
    def broken(prompt: Prompt, response: str) -> float:
        raise KeyError("score")

    with pytest.raises(Refusal, match=r"failed on all 12 responses.*broken raised KeyError: .'score'"):
        rollout(Words(), POLICY, PROMPTS, 2 * FunctionJudge(broken), count=4)


def test_sampling_that_is_not_the_models_own_is_on_record() -> None:
    assert not a_round().sampling.biased
    assert a_round(top_p=0.9).sampling.biased and a_round(temperature=0.7).sampling.biased


def test_the_demo_asks_unseen_prompts_on_unseen_topics() -> None:
    train, unseen = demo_prompts()
    assert (len(train), len(unseen)) == (36, 12)
    assert not set(TRAIN) & set(UNSEEN)
    assert max(Counter(c.prompt for c in train + unseen).values()) == 1


def test_contexts_of_rows_ask_each_prompt_once_per_annotator() -> None:
    rows = [
        Row(1, "prompts", "a"),
        Row(2, "prompts", "b"),
        Row(3, "pairs", "a", ("x", "y")),
        Row(4, "prompts", "a", annotator="z"),
    ]
    assert [(c.prompt, c.annotator) for c in contexts_of(rows)] == [("a", None), ("b", None), ("a", "z")]

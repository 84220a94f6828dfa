"""What text promises: the ids of a row, what is counted, and columns. Numbers are held in test_text_score.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penchant.domains.text import Text
from penchant.errors import Refusal
from penchant.feedback.records import Row
from penchant.objectives import Labelled, Lists, Pairs
from tiny import CHATML, tiny_tokenizer

STOP = 2


def text(template: str | None = CHATML, mode: str = "auto", **settings) -> Text:
    return Text(tiny_tokenizer(template), template=mode, eos=[STOP], **settings)  # pyright: ignore


def pair(number: int, prompt, chosen: str, rejected: str, **said) -> Row:
    return Row(number, "pairs", prompt, (chosen, rejected), **said)


def test_boundary_prompt_ids_and_completion_ids_are_the_whole_chat_as_the_template_writes_it():
    domain = text()
    turns = ({"role": "user", "content": "is it good"}, {"role": "assistant", "content": "yes"})
    for prompt in ("the cat sat", "  leading\n\nand trailing  ", "", (*turns, {"role": "user", "content": "what is it"})):
        row = pair(1, prompt, "a cat on the mat", " a dog\n")
        encoded = domain.encode([row])
        for context, answer, reply in zip(encoded.contexts * 2, encoded.responses[0], row.responses, strict=True):
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            messages.append({"role": "assistant", "content": reply})
            tokenizer = domain.chat.tokenizer
            whole = tokenizer.apply_chat_template(messages, tokenize=False)
            assert tokenizer.decode(torch.cat([context, answer])) == whole.rstrip("\n")
            assert (
                torch.cat([context, answer]).tolist() == tokenizer(whole.rstrip("\n"), add_special_tokens=False).input_ids
            )


def test_an_untruncated_completion_ends_with_exactly_one_stop_token_even_where_its_owner_wrote_one():
    encoded = text().encode([pair(1, "hi", "yes", "no<|im_end|>\n")])
    for answer in encoded.responses[0]:
        assert answer.tolist().count(STOP) == 1
        assert answer[-1] == STOP


def test_real_chats_load(tiny_folder: Path):
    from penchant.domains.models import load

    loaded = load(tiny_folder)
    encoded = loaded.domain.encode([pair(4, "hi", "yes", "no")])
    scored = loaded.domain.score(loaded.policy, encoded)
    assert encoded.numbers == (4,) and scored.logp.shape == (2, max(encoded.lengths))


@pytest.mark.parametrize("kind", [Pairs, Labelled, Lists])
def test_the_columns_of_a_row_stand_where_the_batch_looks_for_them(kind):
    rows = {
        Pairs: [pair(1, "a", "b", "c", strength=0.5), pair(2, "a", "b", "c", annotator="eva")],
        Labelled: [Row(1, "labelled", "a", ("b",), label=True), Row(2, "labelled", "a", ("c",), label=False)],
        Lists: [Row(1, "lists", "a", ("b", "c"), scores=(1.0, 0.0)), Row(2, "lists", "d", ("e",), scores=(3.0,))],
    }[kind]
    encoded = text().encode(rows)
    batch = encoded.blank()
    assert isinstance(batch, kind)
    if isinstance(batch, Pairs):
        assert batch.column("strength")[0] == 0.5 and batch.column("strength")[1].isnan()
        assert batch.column("annotator").tolist() == [-1, 0] and encoded.annotators == ("eva",)
    if isinstance(batch, Labelled):
        assert batch.label.tolist() == [True, False]
    if isinstance(batch, Lists):
        assert batch.gain.tolist() == [1.0, 0.0, 3.0] and batch.group.tolist() == [0, 0, 1]


def test_a_mixed_source_and_a_label_that_is_missing_are_refused_with_their_row():
    with pytest.raises(Refusal, match="row 9 is of the kind 'prompts'"):
        text().encode([pair(1, "a", "b", "c"), Row(9, "prompts", "a")])
    with pytest.raises(Refusal, match="row 3, label"):
        text().encode([Row(3, "labelled", "a", ("b",))])

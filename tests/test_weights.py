"""Weights of parts of a response: from characters in a row to tokens in a batch, and only to who asks for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from penchant.domains.text.domain import Text
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.feedback import convert, open_source
from penchant.feedback.checking import check
from penchant.feedback.formats import read_row
from penchant.feedback.problems import BadRow
from penchant.objectives import DPO, IPO, KTO, NLL, LiPO, Pairs, Scored, TokenWeighted
from penchant.objectives.base import call
from penchant.running.prepare import prepare
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
DOMAIN = Text(TOKENIZER, eos=[2])
PAIR = {
    "prompt": "is it good",
    "chosen": "yes, the cat sat on the mat",
    "rejected": "no\u00e9 it is a bad day",
    "chosen_weights": [[5, 12, 3.0], [12, 13, 0]],
}


def pieces(answer: torch.Tensor) -> list[str]:
    return [str(TOKENIZER.decode([i])) for i in answer.tolist()]


def test_a_token_weighs_what_its_characters_weigh_on_average_and_the_stop_token_1():
    row, _ = read_row(PAIR, 1)
    assert row.weights == (((5, 12, 3.0), (12, 13, 0.0)), ())
    rows = DOMAIN.encode([row])
    assert rows.weights is not None and rows.accounting.weighted == 1
    (w, l), (answer, other) = rows.weights[0], rows.responses[0]
    assert len(w) == len(answer) and len(l) == len(other) and bool(l.eq(1).all())
    each, at = [1.0] * 5 + [3.0] * 7 + [0.0] + [1.0] * 14, 0
    for piece, weight in zip(pieces(answer[:-1]), w[:-1].tolist(), strict=True):
        assert weight == pytest.approx(sum(each[at : at + len(piece)]) / len(piece)), piece
        at += len(piece)
    assert at == len(PAIR["chosen"]) and float(w[-1]) == 1
    assert w.min() < 1 and w.max() == 3


def test_rows_without_weights_count_1_and_selecting_batching_and_recombining_keep_step():
    plain = {k: v for k, v in PAIR.items() if k != "chosen_weights"} | {"prompt": "a"}
    rows = DOMAIN.encode([read_row(plain, 1)[0], read_row(PAIR, 2)[0]])
    assert bool(rows.weight[:2].sum(1).eq(torch.tensor([float(len(y)) for y in rows.responses[0]])).all())
    again = rows.select([1])
    assert torch.equal(again.weight[0, : len(rows.responses[1][0])], rows.weight[2, : len(rows.responses[1][0])])
    assert DOMAIN.recombine(rows, [0, 1], [1, 0]).weights is None
    assert DOMAIN.encode([read_row(plain, 1)[0]]).weights is None
    cut = Text(TOKENIZER, eos=[2], max_length=len(rows.contexts[1]) + 4, too_long="truncate").encode([read_row(PAIR, 1)[0]])
    assert cut.weights is not None and [len(w) for w in cut.weights[0]] == [len(y) for y in cut.responses[0]] == [4, 4]


def test_converted_rows_keep_the_weights_of_their_responses():
    row, _ = read_row(PAIR, 1)
    good, bad = convert([row], "labelled")
    assert (good.weights, bad.weights) == ((row.weights[0],), ((),))  # pyright: ignore[reportOptionalSubscript]
    listed = {
        "prompt": "a",
        "responses": ["one", "two", "three"],
        "scores": [0, 2, 1],
        "response_weights": [[[0, 1, 2]], None, [[0, 5, 0.5]]],
    }
    (pair,) = convert([read_row(listed, 1)[0]], "pairs")
    assert pair.responses == ("two", "one") and pair.weights == ((), ((0, 1, 2.0),))
    single, _ = read_row({"prompt": "a", "completion": "yes", "label": True, "completion_weights": [[0, 3, 2]]}, 1)
    assert single.weights == (((0, 3, 2.0),),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chosen_weights": [[5, 99, 1]]}, r"chosen_weights\[0\].*0 ≤ start < end ≤ 27"),
        ({"chosen_weights": [[5, 5, 1]]}, "start < end"),
        ({"chosen_weights": [[0.5, 5, 1]]}, "start < end"),
        ({"chosen_weights": [[0, 5]]}, r"must be \[start, end, weight\]"),
        ({"chosen_weights": [[0, 5, -1]]}, "a weight of 0, or from"),
        ({"chosen_weights": [[0, 5, "x"]]}, "must be a number"),
        ({"chosen_weights": [[0, 5, 1], [4, 6, 2]]}, "two spans over character 4"),
        ({"chosen_weights": "all"}, "must be a list"),
        ({"rejected_weights": {"0": 1}}, "rejected_weights.*must be a list"),
    ],
)
def test_what_is_wrong_with_weights_is_said_with_the_row(change: dict, said: str):
    with pytest.raises(BadRow) as bad:
        read_row(PAIR | change, 7)
    assert re.search(said, str(bad.value.problems[0])) and "row 7" in str(bad.value.problems[0])


def test_characters_of_a_text_that_is_read_otherwise_cannot_be_counted():
    whole = {"chosen": "is it good? yes", "rejected": "is it good? no", "chosen_weights": [[0, 2, 2]]}
    with pytest.raises(BadRow) as bad:
        read_row(whole, 3)
    assert "not read as it stands" in str(bad.value.problems[0])


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_fingerprint_knows_weights_and_data_without_them_keeps_its_own(tmp_path: Path):
    plain = {k: v for k, v in PAIR.items() if k != "chosen_weights"}
    names = [
        open_source(write(tmp_path / f"{i}.jsonl", [row])).fingerprint
        for i, row in enumerate((plain, PAIR, PAIR | {"chosen_weights": [[5, 12, 2.0]]}, plain | {"chosen_weights": None}))
    ]
    assert len(set(names)) == 3 and names[0] == names[3]


def test_weights_that_nobody_reads_are_said_once(tmp_path: Path):
    data = write(tmp_path / "rows.jsonl", [PAIR | {"prompt": f"{i}"} for i in range(12)])
    settings = Settings(held_out=0.25)
    assert "9 rows weigh parts of their responses, which DPO(beta=0.1) does not read" in " ".join(
        prepare(data, None, DOMAIN, DPO(), settings).notes
    )
    assert not [n for n in prepare(data, None, DOMAIN, TokenWeighted(DPO()), settings).notes if "weigh" in n]
    (found,) = [f for f in check(str(data)).findings if f.name == "rows that weigh parts"]
    assert (found.count, found.severity) == (12, "fine")


def test_only_the_term_that_asks_sees_the_weights():
    logp, mask = torch.tensor([[-1.0, -2.0]]), torch.ones(1, 2, dtype=torch.bool)
    y = Scored(logp, mask, weight=torch.tensor([[2.0, 0.5]]))
    batch = Pairs(y, y)
    nll = NLL(reduction="sum")
    assert call(nll, batch, None).item() == 3.0 and call(TokenWeighted(nll), batch, None).item() == 3.0 - 1 + 1
    both = nll + TokenWeighted(NLL(reduction="token"))
    assert [call(term, batch, None).tolist() for _, term in both.terms] == [[3.0], [2.0, 1.0]]


def test_what_it_wraps_decides_what_it_is():
    assert (
        TokenWeighted(KTO()).data == KTO.data and TokenWeighted(KTO()).remembers and "weight" in TokenWeighted(KTO()).needs
    )
    assert TokenWeighted(IPO()).unit == "pair" and TokenWeighted(LiPO()).unit == "list"
    with pytest.raises(Refusal, match="wrap the terms of a sum"):
        TokenWeighted(DPO() + NLL())

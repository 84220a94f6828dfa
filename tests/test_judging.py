"""What `penchant judge` promises: answers of any file judged by anyone, rows that a run reads, numbers with their intervals; and a
page for a person's votes that is theirs alone. The page is tried in a real browser."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torch import Tensor

from browser import browser
from penchant import DPO, align
from penchant.cli import main
from penchant.domains.text.models import load
from penchant.engine.settings import Settings
from penchant.errors import Refusal
from penchant.evaluation.agreement import fleiss_kappa, krippendorff_alpha, verdicts
from penchant.feedback import open_source
from penchant.judging.answers import Question, joined, questions, read_answers
from penchant.judging.page import Page
from penchant.judging.votes import Votes
from penchant.judging.work import judge_answers
from penchant.objectives.osp import OSP
from penchant.rewards import Context, FunctionJudge, client
from penchant.running.prepare import prepare
from stub_judge import stub


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def answers(n: int = 6) -> list[dict[str, Any]]:
    return [{"prompt": f"question {i}", "responses": [f"good answer {i}", f"bad answer {i}"]} for i in range(n)]


FAST: dict[str, Any] = {"held_out": 2, "sample_prompts": 0, "threads": 1, "precision": "fp32"}


class Placed:
    """Prefers good to bad, and the first place: P = 0.7 for good first, 0.55 for bad first; cannot judge "x"."""

    name = "placed"
    symmetric = False

    def __call__(self, contexts: Sequence[Context], a: Sequence[str], b: Sequence[str]) -> Tensor:
        return torch.tensor(
            [float("nan") if "x" in (x, y) else 0.7 if "good" in x else 0.55 for x, y in zip(a, b, strict=True)]
        )


def nothing(title: str, done: int, total: int) -> None:
    pass


# Reading and judging -------------------------------------------------------------------------------


def test_answers_are_read_in_every_form_and_what_is_none_is_refused(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    forms = [
        {"prompt": "p", "responses": ["a", "b", "a"]},
        {"prompt": chat, "responses": [[{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}]]},
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"prompt": "p", "responses": ["d", "e"], "scores": [1, 2]},
        {"prompt": "p", "completion": "f", "label": True},
    ]
    rows = read_answers(lines(tmp_path / "a.jsonl", forms))
    assert [row.responses for row in rows] == [("a", "b", "a"), ("x", "y"), ("c", "r"), ("d", "e"), ("f",)]
    assert [row.labels for row in rows] == [None, None, (1, 0), (1, 2), None]
    assert [(q.a, q.b, q.label) for q in questions(rows)] == [
        ("a", "b", None), ("x", "y", None), ("c", "r", 1.0), ("d", "e", 0.0)  # the same two texts are asked once
    ]  # fmt: skip
    with pytest.raises(Refusal, match=r"(?s)row 1.*has a prompt and no answer.*row 2.*responses\[1\].*is empty"):
        read_answers(lines(tmp_path / "b.jsonl", [{"prompt": "p"}, {"prompt": "p", "responses": ["a", " "]}]))


def test_two_files_are_joined_by_prompt(tmp_path: Path) -> None:
    new = lines(tmp_path / "new.jsonl", [{"prompt": p, "responses": [f"new {p}"]} for p in "abc"])
    old = lines(tmp_path / "old.jsonl", [{"prompt": p, "completion": f"old {p}"} for p in "bcd"])
    rows, apart = joined(new, old)
    assert [(row.prompt, row.responses, row.names) for row in rows] == [
        (p, (f"new {p}", f"old {p}"), ("new", "old")) for p in "bc"
    ]
    assert apart == 2
    with pytest.raises(Refusal, match="no prompt in common"):
        joined(new, lines(tmp_path / "z.jsonl", [{"prompt": "z", "completion": "z"}]))


def test_a_comparer_gives_pairs_with_strengths_and_its_liking_for_a_place_is_told(tmp_path: Path) -> None:
    data = [
        {"prompt": f"p{i}", "chosen": "bad" if i == 0 else "good", "rejected": "good" if i == 0 else "bad"}
        for i in range(8)
    ]
    made = judge_answers(
        read_answers(lines(tmp_path / "a.jsonl", [*data, {"prompt": "q", "responses": ["x", "y"]}])), Placed(), nothing
    )
    strength = (0.7 + 1 - 0.55) / 2
    assert made.failed == 1 and len(made.rows) == len(made.comparisons) == 8
    assert {row.responses for row in made.rows} == {("good", "bad")}
    assert all(row.strength == pytest.approx(strength) and row.annotator == "placed" for row in made.rows)
    assert made.places is not None and made.places.consistent.value == 0 and made.places.first.value == 1
    assert made.places.preference.value == pytest.approx((0.7 + 0.55) / 2) and made.places.failed == 1
    assert made.agreement is not None and made.agreement.value == pytest.approx(7 / 8) and made.agreement.n == 8
    assert made.wins is not None and (made.wins.wins, made.wins.losses) == (7, 1)  # of chosen over rejected
    assert any("failed, and left out: 1" in line for line in made.lines())


def test_agreement_beyond_chance_counts_every_pair_both_ways_round() -> None:
    draw = random.Random(0)
    a, b = ([draw.choice([0.0, 0.5, 1.0, 1.0]) for _ in range(60)] for _ in range(2))
    found = verdicts(a, b)
    twice = [[*x, *(1 - v for v in x)] for x in (a, b)]
    assert found.kappa is not None and found.alpha is not None
    assert found.kappa.value == pytest.approx(cohen_kappa_score(*([str(v) for v in x] for x in twice)))
    assert found.alpha.value == pytest.approx(krippendorff_alpha(twice).value)
    sure = verdicts([1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0])  # chance is a half, however the sides were written down
    assert sure.kappa is not None and sure.kappa.value == pytest.approx(2 * 3 / 4 - 1)
    assert verdicts([0.5], [0.5]).kappa is None
    with pytest.raises(Refusal, match=r"a verdict is 0\.7"):
        verdicts([0.7], [1.0])


def test_fleiss_kappa_is_the_published_example_and_cohens_rule_for_two() -> None:
    # the ten subjects, fourteen raters and five categories of the textbook example
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts).value == pytest.approx(0.210, abs=5e-4)
    with pytest.raises(Refusal, match="as many raters for every item"):
        fleiss_kappa([[2, 0], [1, 0]])
    with pytest.raises(Refusal, match="0 / 0"):
        fleiss_kappa([[2, 0], [2, 0]])


def test_three_who_answer_are_rated_and_a_liking_for_long_marked_answers_is_held_equal(tmp_path: Path) -> None:
    draw, files = random.Random(0), []
    for name, better in (("strong", 0.8), ("middle", 0.5), ("weak", 0.3)):
        rows = [
            {"prompt": f"p{i}", "responses": [f"{name} {i} {'good' if draw.random() < better else 'bad'}"]}
            for i in range(80)
        ]
        if name == "middle":
            rows = [{**row, "responses": [f"**{row['responses'][0]}** and so on"]} for row in rows[:60]]
        files.append(lines(tmp_path / f"{name}.jsonl", rows))
    rows, apart = joined(*files)
    assert apart == 0 and [len(row.responses) for row in rows] == [3] * 60 + [2] * 20
    made = judge_answers(rows, FunctionJudge(lambda prompt, y: ("good" in y) + 0.6 * ("**" in y), "likes bold"), nothing)
    found = made.standing
    assert found is not None and found.ratings is not None and set(found.ratings.names) == {"strong", "middle", "weak"}
    assert found.ratings.names[-1] == "weak" and math.isfinite(found.ratings.elo[0].low)
    assert sum(one.value for one in found.ratings.elo) / 3 == pytest.approx(1000)
    said = made.to_json()["standing"]
    assert [one["name"] for one in said["arena_score"]] == list(found.ratings.names)
    assert said["style_held_equal"] is None or said["style_held_equal"]["baseline"] == "weak"
    assert any(line.startswith("rated (Bradley-Terry") for line in made.lines()) and "win_rate" in made.to_json()


def test_style_held_equal_is_told_or_why_it_is_not_known(tmp_path: Path) -> None:
    draw = random.Random(1)

    def told(bold: float) -> list[dict[str, Any]]:
        """Answers of any length, a share of them with something in bold."""
        said = [" ".join(draw.choices("abcdef", k=draw.randint(3, 30))) for _ in range(150)]
        return [
            {"prompt": f"p{i}", "responses": [f"**so** {y}" if draw.random() < bold else y]} for i, y in enumerate(said)
        ]

    new, old = told(0.7), told(0.3)
    both = joined(lines(tmp_path / "new.jsonl", new), lines(tmp_path / "old.jsonl", old))[0]
    judge = FunctionJudge(lambda prompt, y: ("**" in y) + draw.gauss(0, 0.7), "bold")
    found = judge_answers(both, judge, nothing).standing
    assert found is not None and found.ratings is None and found.style is not None and found.style.baseline == "old"
    (one,) = found.style.scores
    assert one.raw.value > 0.55 and abs(one.no_difference.value - 0.5) < abs(one.raw.value - 0.5)
    assert found.style.effects["bold"].low > 0
    always = judge_answers(both, FunctionJudge(lambda prompt, y: -len(y), "short"), nothing).standing
    assert always is not None and always.style is None and "no maximum" in always.lines()[0]


def test_a_judge_of_scores_gives_lists_that_a_run_reads_and_ties_win_nothing(tmp_path: Path) -> None:
    new = lines(tmp_path / "new.jsonl", [{"prompt": f"p{i}", "responses": ["aaaa" if i else "a"]} for i in range(5)])
    old = lines(tmp_path / "old.jsonl", [{"prompt": f"p{i}", "responses": ["a b" if i < 4 else "bbbb"]} for i in range(5)])
    made = judge_answers(joined(new, old)[0], FunctionJudge(lambda prompt, y: len(y), "length"), nothing)
    assert made.wins is not None and (made.wins.wins, made.wins.losses, made.wins.ties) == (3, 1, 1)
    assert made.wins.mean.value == pytest.approx(0.7) and made.scores["new"].value == pytest.approx(17 / 5)
    assert [row.scores for row in made.rows][:2] == [(1, 3), (4, 3)] and made.places is None
    with pytest.raises(Refusal, match=r"failed on all 5.*returned nan"):
        judge_answers(joined(new, old)[0], FunctionJudge(lambda prompt, y: float("nan"), "moody"), nothing)


def test_the_command_judges_by_an_endpoint_and_a_run_learns_from_its_rows(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client, "FIRST", 0.002)
    data, out = lines(tmp_path / "answers.jsonl", answers(12)), tmp_path / "rows.jsonl"
    with stub() as told:
        told.says = lambda question, body: (
            "?" if "question 3" in question else "A" if question.index("good") < question.index("bad") else "B"
        )
        words = ["judge", data, "--judge", f"endpoint:{told.url} model=wise as=compare price=1/2", "--output", str(out)]
        assert main(words) == 0
        asked = len(told.bodies)
        assert main([*words, "--overwrite", "--json"]) == 0 and len(told.bodies) == asked == 24
        assert main(words) == 2  # the output is there already
    said = capsys.readouterr()
    assert "the same verdict 100.0 %" in said.out and "failed, and left out: 1" in said.out and "cost 0.00" in said.out
    assert "gives no verdict: '?'" in said.out and "is there already" in said.err
    source = open_source(out)
    assert len(source) == 11 and all(row.responses[0].startswith("good") and row.strength == 1 for row in source)
    assert align(str(tiny_folder), str(out), DPO(), output=tmp_path / "run", quiet=True, steps=1, **FAST).model.exists()


def test_what_penchant_sample_prints_is_judged_and_a_model_may_be_asked(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = lines(tmp_path / "p.jsonl", [{"prompt": "is it good"}, {"prompt": [{"role": "user", "content": "a day"}]}])
    assert (
        main(["sample", "--model", str(tiny_folder), "--prompts", prompts, "--count", "3", "--limit", "5", "--json"]) == 0
    )
    (tmp_path / "s.jsonl").write_text(capsys.readouterr().out)
    words = ["judge", str(tmp_path / "s.jsonl"), "--output", str(tmp_path / "o.jsonl"), "--json", "--judge"]
    assert main([*words, f"model:{tiny_folder}"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (
        made["comparisons"] > 2 and made["rows"] == len(open_source(tmp_path / "o.jsonl")) and made["consistent"]["n"] > 2
    )
    assert main([*words, "self", "--overwrite"]) == 2 and "name it, as model:NAME" in capsys.readouterr().err


# A person ------------------------------------------------------------------------------------------


def asked(n: int = 4) -> list[Question]:
    return [Question(f"question {i}", f"good answer {i}", f"bad answer {i}") for i in range(n)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_votes_are_rows_taken_back_whole_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    votes = Votes(path, asked(), 3, "ann")
    first = votes.next()
    assert first is not None
    votes.add(first, "right")
    assert rows_of(path)[0]["chosen"] == votes.sides(first)[1] and rows_of(path)[0]["shown_first"] == "rejected"
    second = votes.next()
    assert second is not None
    votes.skip(second)
    third = votes.next()
    assert third is not None
    votes.add(third, "tie")
    assert votes.undo() and len(rows_of(path)) == 1  # the tie …
    assert votes.undo() and votes.next() == second  # … then the skip …
    votes.add(second, "left")
    with path.open("ab") as file:
        file.write(b'{"prompt": "half a li')
    again = Votes(path, asked(), 3, "ann")
    assert again.dropped and again.done == 2 and again.next() not in (first, second, None)
    assert again.sides(first) == votes.sides(first)
    assert again.undo() and again.undo() and not again.undo() and path.read_bytes() == b""
    other = Votes(path, asked(), 3, "bob")
    other.add(first, "left")
    assert Votes(path, asked(), 3, "ann").done == 0  # everyone votes for themselves
    with pytest.raises(Refusal, match="is no vote"):
        Votes(Path(lines(tmp_path / "other.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])), asked(), 0, "ann")


def test_sides_are_drawn_from_the_seed_and_about_half_are_turned(tmp_path: Path) -> None:
    many = asked(400)
    turned = [Votes(tmp_path / "v", many, seed, "ann") for seed in (0, 0, 1)]
    sides = [[v.sides(q)[0].startswith("bad") for q in many] for v in turned]
    assert sides[0] == sides[1] != sides[2] and 160 < sum(sides[0]) < 240


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with Page(Votes(tmp_path / "votes.jsonl", asked(), 0, "ann")) as served:
        thread = Thread(target=served.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def request(page: Page, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    line = HTTPConnection("127.0.0.1", page.server_port, timeout=10)
    told = {"Host": page.host, "Origin": f"http://{page.host}", "Content-Type": "application/json"}
    line.request(method, path, body, {**told, **{name.replace("_", "-"): value for name, value in headers.items()}})
    answer = line.getresponse()
    return answer.status, answer.read()


def test_the_page_answers_nobody_without_its_token_host_and_origin(page: Page, tmp_path: Path) -> None:
    act, show = f"/{page.token}/act", json.dumps({"act": "show"}).encode()
    status, said = request(page, "POST", act, show)
    assert status == 200
    vote = json.dumps({"act": "left", "question": json.loads(said)["question"]}).encode()
    refused: list[tuple[str, str, dict[str, str], bytes]] = [
        ("POST", "/wrong-token/act", {}, vote),
        ("POST", "/act", {}, vote),
        ("GET", "/", {}, b""),
        ("GET", f"/{page.token}", {}, b""),
        ("POST", act, {"Host": f"evil.example:{page.server_port}"}, vote),
        ("POST", act, {"Host": f"localhost:{page.server_port}"}, vote),
        ("POST", act, {"Origin": "http://evil.example"}, vote),
        ("POST", act, {"Origin": "null"}, vote),
        ("GET", f"/{page.token}/", {"Host": "evil.example"}, b""),
        ("GET", f"/{page.token}/", {"Origin": "http://evil.example"}, b""),
        ("GET", f"/{page.token}/../act", {}, b""),
        ("POST", act, {"Content_Type": "text/plain"}, vote),
        ("POST", act, {}, b"[" * 900),
        ("POST", act, {}, b" " * 5000),
    ]
    for method, path, headers, body in refused:
        status, said = request(page, method, path, body, **headers)
        assert status in (400, 403, 413), (method, path, headers)
        assert b"answer" not in said and not (tmp_path / "votes.jsonl").exists()
    bare = HTTPConnection("127.0.0.1", page.server_port, timeout=10)
    bare.request("POST", act, vote, {"Content-Type": "application/json", "Host": page.host})
    assert bare.getresponse().status == 403  # no Origin at all: no browser sends a vote so
    assert page.server_address[0] == "127.0.0.1" and len(page.token) >= 32
    assert request(page, "POST", act, b'{"act": "left", "question": "another"}')[0] == 409
    assert request(page, "POST", act, vote)[0] == 200 and len(rows_of(tmp_path / "votes.jsonl")) == 1
    assert request(page, "POST", act, vote)[0] == 409 and len(rows_of(tmp_path / "votes.jsonl")) == 1


def test_in_a_browser_a_person_reads_two_answers_and_presses_keys_and_a_run_reads_the_votes(
    tmp_path: Path, tiny_folder: Path
) -> None:
    do = "document.title='PWNED'"
    hostile = f'<script>{do}</script><img src=x onerror="{do}"></div><svg onload={do}>'
    many = [
        Question(f"question {i} {hostile}", f"good answer {i} {hostile}", f"bad answer {i} {hostile}") for i in range(8)
    ]
    path = tmp_path / "votes.jsonl"
    with Page(Votes(path, many, 0, "ann")) as served, browser(tmp_path) as tab:
        Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        tab.open(served.url)
        tab.until("document.getElementById('left') && document.getElementById('left').textContent.includes('answer')")
        for k in range(8):
            left, right = (tab.ask(f"document.getElementById('{side}').textContent") for side in ("left", "right"))
            assert {left.split()[0], right.split()[0]} == {"good", "bad"} and hostile in left
            tab.press("=" if k == 7 else "ArrowLeft" if left.startswith("good") else "ArrowRight")
            tab.until(f"document.getElementById('progress').textContent.startsWith('{k + 1} of 8')")
            if k == 0:
                tab.press("u")
                tab.until("document.getElementById('progress').textContent.startsWith('0 of 8')")
                assert rows_of(path) == []
                tab.press("s")
                tab.until("document.getElementById('progress').textContent.includes('1 skipped')")
                tab.press("u")
                tab.until("!document.getElementById('progress').textContent.includes('skipped')")
                tab.press("ArrowLeft" if left.startswith("good") else "ArrowRight")
                tab.until("document.getElementById('progress').textContent.startsWith('1 of 8')")
        assert (
            not tab.ask("document.getElementById('over').hidden") and tab.ask("document.title") == "Which answer is better?"
        )
        sent = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
        assert sent and all(url.startswith(served.url) or url == "about:blank" for url in sent)
        served.shutdown()
    rows = list(open_source(path))
    assert [row.strength for row in rows] == [1.0] * 7 + [0.5] and {row.annotator for row in rows} == {"ann"}
    assert all(row.responses[0].startswith("good") for row in rows[:7]) and {row.extra["seed"] for row in rows} == {0}
    domain = load(str(tiny_folder)).domain
    made = prepare(path, None, domain, DPO(), Settings(held_out=2))
    assert made.about["ties"] == 1 and made.train is not None and made.held_pairs is not None
    assert len(made.train) + len(made.held_pairs) == 7 and "1 ties (strength 0.5) left out" in " ".join(made.notes)
    assert "ties" not in prepare(path, None, domain, OSP(), Settings(held_out=2)).about

"""The report, the model card and the terminal summary show what a run left, and let no text of models or data act.
How the page looks is judged by eye; what is tested here is what it holds and what it cannot do."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import evidence_example as example
from penchant.evaluation.evidence import IN_PYTHON, RunEvidence
from penchant.evaluation.verdict import before_after, judge_run
from penchant.report import facts
from penchant.report.card import code, model_card, prose
from penchant.report.charts import Curve, curves, lined, points
from penchant.report.page import render
from penchant.report.terminal import print_summary, progress

HOSTILE = [
    "x" * 1_000_000,
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x9b31m",
    "[red]painted[/red] [link=http://evil.example]x[/link]",
    "\u202egnp.exe\u2066",
    "nul\x00byte",
    "\n---\nlicense: stolen\n---\n",
    "{{7*7}}{% for x in y %}",
    '" onmouseover="alert(1)',
    "``` ` [a](http://evil.example) ![b](http://evil.example/i.png) <b>",
    "$\\frac{1}{2}$ | cell | http://evil.example www.evil.example",
]
RUNS = {
    "offline": example.offline(),
    "on-policy": example.online(),
    "collapsed": example.online(collapse=True),
    "broken off": example.broken_off(),
}
VERDICTS = {name: judge_run(run) for name, run in RUNS.items()}
PAGES = {name: render(run, VERDICTS[name]) for name, run in RUNS.items()}


def hostile() -> RunEvidence:
    """A run whose every name and text is an attack."""
    base = example.offline(steps=12, held_out=40)
    assert base.samples_after is not None
    samples = dataclasses.replace(
        base.samples_after,
        prompts=HOSTILE,
        texts=[[text] * 4 for text in HOSTILE],
        judge=HOSTILE[4] + HOSTILE[0],
        **{
            name: getattr(base.samples_after, name)[:1] * len(HOSTILE)
            for name in ("lengths", "stopped", "logp", "ref", "kl", "scores")
        },
    )
    evil = "".join(HOSTILE[1:])
    return dataclasses.replace(
        base,
        settings={**base.settings, "model": evil, "data": evil, "judge": evil, "objective": evil + "DPO(beta=0.1)"},
        choices={"model": {"licence": evil, "base": None}, evil: evil},
        data={**base.data, "source": evil, "format": evil, "accounting": {"read": 2, "kept": 1, "dropped": {evil: 1}}},
        history=[*base.history, {"kind": "step", "step": 13, f"loss/{evil}": 1.0, "loss": 1.0}],
        samples_before=samples,
        samples_after=samples,
        stopped_by=evil,
    )


HOSTILE_RUN = hostile()
HOSTILE_VERDICT = judge_run(HOSTILE_RUN)
HOSTILE_PAGE = render(HOSTILE_RUN, HOSTILE_VERDICT)


class Elements(HTMLParser):
    """Every element of a page with its attributes, every text in it, and what was left open."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def charts(page: str) -> list[str]:
    """The SVG of every picture of a page."""
    return [base64.b64decode(part).decode() for part in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]


@pytest.mark.parametrize("page", [*PAGES.values(), HOSTILE_PAGE], ids=[*PAGES, "hostile"])
def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    elements = Elements(page)
    assert not elements.open
    allowed = (
        "html head meta title style body header main section footer h1 h2 h3 p ul li dl dt dd div span strong code pre"
    )
    assert {tag for tag, _ in elements.found} <= {
        *allowed.split(), *["table", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption", "img"]
    }  # fmt: skip
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            assert name in {
                "lang", "charset", "http-equiv", "content", "name", "class", "id", "scope", "src", "alt", "width",
                "height", "open", "dir", "aria-hidden",
            }, (tag, name)  # fmt: skip
            assert name != "src" or value.startswith("data:image/svg+xml;base64,")
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css and "@import" not in css


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_policy_allows_this_very_style_block_and_data_pictures_and_nothing_else(page: str) -> None:
    policy = next(a["content"] for _, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_hostile_texts_are_only_characters_on_the_page() -> None:
    page = HOSTILE_PAGE
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    shown = "".join(Elements(page).words)
    assert "<script>alert(1)</script>" in shown and "<script" not in page
    assert "{{7*7}}" in shown and "␛]8;;" in shown and "[red]painted" in shown
    assert len(page) < 1_500_000
    assert "996,000 more characters are not on this page." in shown


def test_no_text_of_models_or_data_is_drawn_in_a_chart() -> None:
    drawn = "".join(charts(HOSTILE_PAGE))
    assert len(drawn) > 10_000
    assert "alert" not in drawn and "evil" not in drawn and "<script" not in drawn and "http://evil" not in drawn


def test_hostile_texts_are_only_characters_in_the_model_card() -> None:
    card = model_card(HOSTILE_RUN, HOSTILE_VERDICT)
    _, front, body = card.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"library_name", "pipeline_tag", "tags"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", card)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", body, flags=re.S)
    assert not re.search(r"(?<!\\)<", outside)
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert "https://" not in outside and "http://" not in outside


@pytest.mark.parametrize("text", HOSTILE[1:], ids=range(1, len(HOSTILE)))
def test_a_code_span_ends_where_it_was_meant_to_and_prose_stays_on_its_line(text: str) -> None:
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None and span.endswith(fence[0])
    assert fence[0] not in span[len(fence[0]) : -len(fence[0])]
    assert "\n" not in span and "\n" not in prose(text)
    assert not re.search(r"(?<!\\)[<>`\[\]|$*_]", prose(text).replace("\\\\", ""))


@pytest.mark.parametrize("width", [80, 120])
def test_hostile_texts_are_only_characters_in_the_terminal(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system="truecolor")
    print_summary(console, HOSTILE_RUN, HOSTILE_VERDICT, {"[bold]report": Path("runs/[red]x\x1b[2J/report.html")})
    said = out.getvalue()
    assert not re.sub(r"\x1b\[[0-9;]*m", "", said).count("\x1b")  # rich's own colours, and no other sequence
    assert "\u202e" not in said and "\x00" not in said and "\x9b" not in said
    assert "[red]painted[/red]" in re.sub(r"\s+", "", said.replace(" ", "")) or "[red]painted" in said
    assert "runs/[red]x␛[2J/report.html" in said


@pytest.mark.parametrize("name", RUNS)
def test_page_card_and_terminal_show_every_number_of_the_table_and_every_finding_that_holds(name: str) -> None:
    run, verdict = RUNS[name], VERDICTS[name]
    out = io.StringIO()
    print_summary(Console(file=out, width=200), run, verdict, {})
    page, terminal, card = " ".join("".join(Elements(PAGES[name]).words).split()), out.getvalue(), model_card(run, verdict)
    for row in before_after(run):
        for cell in (row.name, *row.cells):
            assert cell in page and cell in terminal and prose(cell) in card
    for finding in verdict.held:
        said = " ".join(finding.sentence.split())
        assert said in page and said in " ".join(terminal.split()) and prose(said) in card
    assert html.escape(verdict.word.capitalize()) in page


def test_the_verdict_comes_first_and_its_word_is_in_the_title() -> None:
    page = PAGES["collapsed"]
    assert (
        page.index('id="verdict"') < page.index('id="before-after"') < page.index('id="what"') < page.index('id="samples"')
    )
    assert "<title>collapsed: smollm2, aligned with DPO(beta=0.1)</title>" in page
    assert 'class="verdict bad"' in page and 'class="verdict good"' in PAGES["offline"]


def test_without_samples_no_prompt_and_no_response_is_on_the_page() -> None:
    run = RUNS["on-policy"]
    page = "".join(Elements(render(run, VERDICTS["on-policy"], samples=False)).words)
    with_texts = "".join(Elements(PAGES["on-policy"]).words)
    for samples in (run.samples_before, run.samples_after):
        assert samples is not None
        for prompt, texts in zip(samples.prompts[:12], samples.texts[:12], strict=True):
            for text in (prompt, *texts):
                assert text in with_texts and text not in page
    assert "Texts were left out of this report, as asked." in page


def test_the_model_card_and_the_summary_hold_no_prompt_and_no_response() -> None:
    run = RUNS["offline"]
    out = io.StringIO()
    print_summary(Console(file=out, width=500), run, VERDICTS["offline"], {})
    said = out.getvalue() + model_card(run, VERDICTS["offline"])
    assert run.samples_after is not None
    assert not [t for t in (*run.samples_after.prompts, *run.samples_after.texts[0]) if t in said]


@pytest.mark.parametrize(
    "left_out",
    [
        ("samples_before", "samples_after"),
        ("pairs_before", "pairs_after", "train_pairs"),
        ("samples_before", "pairs_before"),
        ("history",),
    ],
)
def test_a_run_that_measured_less_is_still_reported(left_out: tuple[str, ...]) -> None:
    run = dataclasses.replace(
        example.offline(40, held_out=40), **{name: [] if name == "history" else None for name in left_out}
    )
    verdict = judge_run(run)
    page = render(run, verdict)
    print_summary(Console(file=io.StringIO()), run, verdict, {})
    assert verdict.word.capitalize() in page and verdict.word in model_card(run, verdict)
    assert ('id="curves"' in page) == ("history" not in left_out)
    assert ("judge" in "".join(Elements(page).words)) == ("samples_after" not in left_out)


def test_a_run_broken_off_at_once_says_so_and_shows_no_empty_section() -> None:
    page = PAGES["broken off"]
    assert "Interrupted" in page and "interrupted after 0 recorded steps" in page
    assert not [part for part in ("before-after", "curves", "distributions", "samples") if f'id="{part}"' in page]


def test_the_charts_carry_titles_axes_with_units_and_both_colour_schemes() -> None:
    elements = Elements(PAGES["offline"])
    pictures = [attributes for tag, attributes in elements.found if tag == "img"]
    assert len(pictures) == 16
    assert all(re.match(r"\w.+: .+ .+", picture["alt"]) for picture in pictures)
    drawn = charts(PAGES["offline"])
    assert all("prefers-color-scheme:dark" in svg and "var(--c" in svg for svg in drawn)
    together = " ".join(drawn)
    for label in ("optimiser step", "log π per token, nats", "KL to the reference, nats", "number of samples", "tokens"):
        assert label in together
    rounds = " ".join(charts(PAGES["on-policy"]))
    for label in ("round", "mean score of the samples", "distinct word pairs, share"):
        assert label in rounds


def test_captions_give_the_first_and_last_numbers_of_a_curve() -> None:
    words = "".join(Elements(PAGES["on-policy"]).words)
    first, last = (
        line["score"] for line in RUNS["on-policy"].history if line["kind"] == "round" and line["round"] in (1, 6)
    )
    assert f"score {facts.number(first)} → {facts.number(last)}." in words
    at = points(RUNS["on-policy"].history, Curve("score", "score", kind="round"))
    assert at[:, 0].tolist() == [1, 2, 3, 4, 5, 6]  # rounds are counted from 1, and drawn so


def test_a_thousand_steps_fit_in_a_page_of_a_megabyte_and_a_half() -> None:
    assert len(render(example.offline(steps=1000, held_out=40), VERDICTS["offline"]).encode()) < 1_500_000


def test_one_spike_among_a_thousand_steps_stays_seen() -> None:
    lines = [{"kind": "step", "step": i, "grad_norm": 1.0 + i % 3} for i in range(1, 1001)]
    for height, seen in ((2.0, False), (1e6, True)):
        lines[500]["grad_norm"] = height
        chart = lined(lines, "Gradient norm", "norm", [Curve("grad_norm", "norm")], log=True)
        assert chart is not None
        (svg,) = charts(f'"{chart.uri}"')
        assert ("1e+06" in svg) == seen


def test_numbers_that_are_not_finite_are_not_drawn_and_do_not_stop_the_report() -> None:
    run = example.offline(steps=20, held_out=40)
    broken = dataclasses.replace(
        run, history=[*run.history, {"kind": "step", "step": 21, "loss": float("nan"), "lr": None}]
    )
    page = render(broken, VERDICTS["offline"])
    assert "21 optimiser steps" in page and "nan" not in "".join(charts(page)).lower()


def test_the_same_run_gives_the_same_page() -> None:
    assert render(RUNS["collapsed"], VERDICTS["collapsed"]) == PAGES["collapsed"]


def test_the_command_names_what_was_asked_and_only_settings_that_differ_from_their_defaults() -> None:
    words = shlex.split(facts.command(RUNS["offline"]).replace("\\\n", ""))
    assert words == [
        "penchant", "align", "--model", "smollm2", "--data", "pairs.jsonl",
        "--objective", "DPO(beta=0.1) + 0.005*NLL()", "--output", "runs/first", "--learning-rate", "2e-05",
    ]  # fmt: skip
    handed = dataclasses.replace(RUNS["offline"], settings={"data": IN_PYTHON, "unseen": IN_PYTHON})
    assert facts.command(handed) == "penchant align \\\n  --data ROWS.jsonl \\\n  --unseen UNSEEN.jsonl"
    evil = dataclasses.replace(RUNS["offline"], settings={"model": "$(rm -rf ~); `x`", "data": "a'b\nc"})
    assert shlex.split(facts.command(evil).replace("\\\n  ", "")) == [
        "penchant", "align", "--model", "$(rm -rf ~); `x`", "--data", "a'b\nc",
    ]  # fmt: skip


def test_the_card_is_read_by_the_hub_and_names_base_licence_data_and_method() -> None:
    run = dataclasses.replace(RUNS["offline"], choices={"model": {"licence": "apache-2.0", "base": None}})
    head = yaml.safe_load(model_card(run, VERDICTS["offline"]).split("---\n")[1])
    assert head == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["penchant", "preference-alignment", "dpo", "nll"],
        "license": "apache-2.0",
    }
    hub = dataclasses.replace(run, data={**run.data, "source": "owner/pairs:test"})
    assert yaml.safe_load(model_card(hub, VERDICTS["offline"]).split("---\n")[1])["datasets"] == ["owner/pairs"]
    adapter = dataclasses.replace(run, settings={**run.settings, "lora": 8, "model": "./my-model"})
    card = model_card(adapter, VERDICTS["offline"])
    assert "library_name: peft" in card and "AutoPeftModelForCausalLM" in card and "base_model" not in card


def test_progress_is_silent_without_a_terminal_and_reads_no_markup_in_descriptions() -> None:
    out = io.StringIO()
    with progress(Console(file=out)) as bars:
        bars.advance(bars.add_task("training", total=3))
    assert out.getvalue() == ""
    with progress(Console(file=out, force_terminal=True, width=100)) as bars:
        bars.advance(bars.add_task("[red]training", total=3))
    assert "[red]training" in out.getvalue() and "1/3" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0.0, "0"), (0.12345, "0.123"), (-1.5, "−1.50"), (42.123, "42.1"), (1234567, "1,234,567"),
     (2e-5, "2.00e−05"), (float("nan"), "not a number"), (float("-inf"), "−infinite")],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(value: float | None, said: str) -> None:
    assert facts.number(value) == said


def test_a_browser_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    page = tmp_path / "report.html"
    page.write_text(HOSTILE_PAGE, encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}",
         "--enable-logging=stderr", "--window-size=1200,3000", f"--screenshot={tmp_path / 'page.png'}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert "CONSOLE" not in done.stderr


def test_what_was_learned_of_annotators_is_charted_numbered_and_named_as_plain_text() -> None:
    base = example.offline(steps=12, held_out=40)
    names = ["ada", HOSTILE[1]]
    steps = [
        line | {f"state/reliability/{name}": 0.9 - 0.01 * k * line["step"] for k, name in enumerate(names)}
        for line in base.history
        if line["kind"] == "step"
    ]
    last = {"kind": "state", "step": 12, "reliability/annotator": {names[0]: 0.9, names[1]: 0.78}}
    run = dataclasses.replace(base, history=[*steps, last], data={**base.data, "annotators": {"ada": 30, names[1]: 10}})
    (found,) = facts.remembered(run)
    assert found == facts.Ranked("Reliability by annotator", ((2, names[1], 10, 0.78), (1, "ada", 30, 0.9)), 0)
    page = render(run, judge_run(run))
    assert html.escape(names[1]) in page and names[1] not in page
    (chart,) = [chart for chart in curves(run) if chart.title == "Memory: reliability"]
    assert chart.said == "no. 1 0.900 → 0.900; no. 2 0.890 → 0.780."
    out = io.StringIO()
    print_summary(Console(file=out, width=200), run, judge_run(run), {})
    assert f"Reliability by annotator, the lowest first: {names[1]} 0.780, ada 0.900" in out.getvalue()
    many = dataclasses.replace(run, history=[{**last, "reliability/annotator": {str(k): k / 100 for k in range(100)}}])
    assert facts.remembered(many)[0].hidden == 76 and "76 between" in render(many, judge_run(many))
    assert facts.remembered(base) == []

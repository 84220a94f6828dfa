"""The report in a real browser: no text of models, data or people runs, and nothing is asked of any network. That the page holds
no such element is tested elsewhere, by reading it; here a browser is asked."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

import evidence_example as example
from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.verdict import judge_run
from penchant.report.card import model_card
from penchant.report.page import render


def attacks(address: str) -> list[str]:
    """Texts that set the page's title, or ask the address for something, where one of them is read as more than text."""
    do = "document.title='PWNED';document.documentElement.setAttribute('data-pwned','1')"
    return [
        f"<script>{do}</script>",
        f"</script><script>{do}</script>",
        f"</title><script>{do}</script>",
        f"</style><script>{do}</script>",
        f'"><img src=x onerror="{do}">',
        f'\'><svg onload="{do}">',
        f"<svg><script>{do}</script></svg>",
        f"<body onload={do}>",
        f'<math><mtext><table><mglyph><style><img src=x onerror="{do}">',
        f"<details open ontoggle={do}>",
        f'<iframe srcdoc="<script>{do}</script>">',
        f'<a href="javascript:{do}" autofocus onfocus={do}>x</a>',
        f'" onmouseover="{do}" x="',
        f"javascript:{do}",
        f"-->]]><script>{do}</script>",
        f'<img src="{address}/img">',
        f'<link rel=stylesheet href="{address}/css">',
        f'<meta http-equiv=refresh content="0;url={address}/go">',
        f"<style>@import url({address}/import)</style>",
        f"url({address}/url)",
        f'<base href="{address}/">',
        f"![x]({address}/markdown)",
        f'<object data="{address}/object">',
        f'<form action="{address}/form"><input autofocus>',
        "{{7*7}}{% for x in y %}{{ self.__init__.__globals__ }}",
        "\u202e" + f"<script>{do}</script>",
        f"\x00<scr\x00ipt>{do}</scr\x00ipt>",
        "&lt;script&gt;" + do,
        "%3Cscript%3E" + do,
        "\ufeff\x1b]8;;" + address,
        "\n---\nlicense: stolen\nbase_model: stolen/model\n---\n",
        "x" * 200_000 + f"<script>{do}</script>",
    ]


def run_of(texts: list[str]) -> RunEvidence:
    """A run all of whose names and texts are these."""
    base = example.offline(steps=6, held_out=20)
    assert base.samples_after is not None
    one = "".join(text for text in texts if len(text) < 1000)
    same = {
        name: getattr(base.samples_after, name)[:1] * len(texts)
        for name in ("lengths", "stopped", "logp", "ref", "kl", "scores")
    }
    samples = dataclasses.replace(
        base.samples_after, prompts=texts, texts=[[text] * 4 for text in texts], judge=one, **same
    )
    people = {"kind": "state", "step": 7, f"{one}/annotator": {text: 0.5 for text in texts}}
    return dataclasses.replace(
        base,
        settings={
            **base.settings,
            **dict.fromkeys(("model", "data", "unseen", "judge", "output", one), one),
            "objective": one + "DPO()",
        },
        choices={"model": {"licence": one, "base": None, one: texts}, one: one},
        data={
            **base.data,
            "source": one,
            "format": one,
            "annotators": {text: 3 for text in texts},
            "accounting": {"read": 2, "kept": 1, "dropped": {one: 1}},
        },
        history=[
            *base.history,
            {"kind": "step", "step": 7, "loss": 1.0, **{f"{text[:500]}/{one}": 1.0 for text in texts}},
            people,
        ],
        samples_before=samples,
        samples_after=samples,
        stopped_by=one,
    )


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what it was asked for."""
    paths: list[str] = []

    class Notes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Notes)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def opened(page: Path) -> str:
    """The page as a browser has it two seconds of its own time after opening it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={page.parent / 'profile'}",
            "--virtual-time-budget=2000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "</html>" in done.stdout, done.stderr[-500:]
    return done.stdout


def test_in_a_browser_no_text_of_a_run_acts_or_asks_for_anything(tmp_path: Path, asked: tuple[str, list[str]]) -> None:
    address, paths = asked
    texts = attacks(address)
    run = run_of(texts)
    page = tmp_path / "report.html"
    page.write_text(render(run, judge_run(run)), encoding="utf-8")
    seen = opened(page)
    assert "<title>PWNED" not in seen and not re.search(r"<html[^>]*data-pwned", seen)
    assert "<script" not in seen and not re.search(r"<[^>]* on\w+=", seen)
    assert not paths, f"the page asked for {paths}"
    assert "What it said, before and after" in seen


@pytest.mark.claims
def test_the_browser_does_act_on_such_texts_where_they_are_not_made_harmless(
    tmp_path: Path, asked: tuple[str, list[str]]
) -> None:
    address, paths = asked
    texts = attacks(address)
    page = tmp_path / "unsafe.html"
    page.write_text("<!doctype html><html><title>x</title><body>" + "\n".join(texts[:2] + texts[15:17]), encoding="utf-8")
    seen = opened(page)
    assert re.search(r"<html[^>]*data-pwned", seen) and "/img" in paths


def test_no_name_of_a_run_changes_what_a_model_card_says_of_itself() -> None:
    run = run_of(attacks("http://127.0.0.1:9"))
    front = yaml.safe_load(model_card(run, judge_run(run)).split("---\n")[1])
    assert set(front) == {"library_name", "pipeline_tag", "tags"} and "stolen" not in str(front)

"""What sampling on a server promises: the policy's own weights, the sampled ids themselves, and a sentence for whatever else it
answers. The server is a process on loopback that speaks vLLM's protocol; vLLM itself is not run here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from accelerate import Accelerator

from penchant import DPO, align
from penchant.domains.text.models import Loaded, LoRA, load
from penchant.engine.drawing import Drawing
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Scorer
from penchant.errors import Refusal, StoppedRun
from penchant.rewards import FunctionJudge
from penchant.rollouts.server import Server

PROMPTS = ["is it good", "the cat sat on the mat, and the dog is happy", "a"]
CPU = torch.device("cpu")


def tell(url: str, path: str, value: Any = None) -> Any:
    data = None if value is None else json.dumps(value).encode()
    return json.loads(urlopen(Request(url + path, data)).read())


@pytest.fixture(scope="module")
def stub(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server process."""
    port = tmp_path_factory.mktemp("stub") / "port"
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "stub_vllm.py"), str(tiny_folder), str(port)]
    ) as process:
        try:
            until = time.monotonic() + 60
            while not port.exists():
                assert process.poll() is None and time.monotonic() < until, "the server did not start"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port.read_text()}"
        finally:
            process.kill()


@pytest.fixture
def url(stub: str) -> str:
    tell(stub, "/fault", {"fault": "", "key": ""})
    return stub


def moved(loaded: Loaded) -> Loaded:
    """The model after some learning."""
    make = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, p in loaded.policy.named_trainable():
            p.add_(0.05 * torch.randn(p.shape, generator=make))
    return loaded


def greedy(loaded: Loaded, **how: Any) -> list[list[list[int]]]:
    samples = loaded.domain.sample(loaded.policy, PROMPTS, limit=12, temperature=0.0, scored=False, **how)
    return [[y.tolist() for y in ys] for ys in samples.encoded.responses]


@pytest.mark.parametrize("lora", [None, LoRA(4, 8)])
def test_the_server_samples_greedily_what_the_model_itself_does_before_and_after_it_has_learned(
    lora: LoRA | None, tiny_folder: Path, url: str, tmp_path: Path
):
    loaded = load(str(tiny_folder), lora=lora)
    server = Server(url, tmp_path / "server", 30)
    before = greedy(loaded)
    assert greedy(loaded, sampler=server) == before
    after = greedy(moved(loaded))
    assert after != before
    assert greedy(loaded, sampler=server) == after
    left = sorted(path.name for path in (tmp_path / "server").iterdir())
    served = [one["id"] for one in tell(url, "/v1/models")["data"]]
    # of a whole model nothing stays behind, of an adapter the one that is served
    assert left == served[1:] and len(left) == (lora is not None)


def test_what_is_asked_leaves_nothing_to_the_servers_own_defaults(tiny_folder: Path, url: str, tmp_path: Path):
    loaded = load(str(tiny_folder))
    how = {"count": 3, "limit": 5, "temperature": 0.7, "top_p": 0.9}
    tell(url, "/fault", {"fault": ""})
    samples = loaded.domain.sample(loaded.policy, PROMPTS, seed=4, sampler=Server(url, tmp_path, 30), **how)  # pyright: ignore
    asked = [value for path, value in tell(url, "/seen") if path == "/v1/completions"]
    assert sorted(one["prompt"] for one in asked) == sorted(x.tolist() for x in samples.encoded.contexts)
    for one in asked:
        assert (one["n"], one["max_tokens"], one["temperature"], one["top_p"]) == (3, 5, 0.7, 0.9)
        assert (one["top_k"], one["min_p"], one["repetition_penalty"]) == (-1, 0.0, 1.0)
        assert one["return_token_ids"] is True and one["stop_token_ids"] == sorted(loaded.domain.chat.stops)
    assert len({one["seed"] for one in asked}) == 3
    assert samples.drawn is not None and samples.logp is not None
    torch.testing.assert_close(samples.drawn.logp, samples.logp.logp, atol=1e-4, rtol=0)


SAID = {
    "no model": "serves no model",
    "another tokenizer": "tokenizer is another",
    "no development mode": "did not take the policy's weights.*404.*VLLM_SERVER_DEV_MODE=1",
    "cache in use": "did not clear its prefix cache",
    "an error": r"POST http.*/v1/completions: the server refused with 500 \('CUDA out of memory",
    "silence": "no answer within 1 s",
    "no JSON": "answered without 'model'",
    "another model": "answered as the model 'another/model'",
    "one answer less": "prompt 1: the server .* gave 1 answers where 2 were asked for",
    "no ids": "returns no token ids",
    "another prompt": "other tokens than the",
    "a token too large": "tokens that are no answer",
    "no end": "ended an answer of 1 tokens with 'length'",
    "a log-prob less": "log-probs that are none of its",
    "elsewhere": "refused with 307",
}


@pytest.mark.parametrize("fault", list(SAID))
def test_whatever_else_a_server_answers_is_a_sentence(fault: str, tiny_folder: Path, url: str, tmp_path: Path):
    tell(url, "/fault", {"fault": fault})
    loaded = load(str(tiny_folder))
    with pytest.raises(Refusal, match=f"(?s){SAID[fault]}") as refusal:
        server = Server(url, tmp_path, 1)
        loaded.domain.sample(loaded.policy, ["is it good"], count=2, limit=6, scored=False, sampler=server)
    assert "\x1b" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_server_that_takes_no_adapters_or_is_not_there_is_a_sentence(tiny_folder: Path, url: str, tmp_path: Path):
    tell(url, "/fault", {"fault": "no adapters"})
    adapted = load(str(tiny_folder), lora=LoRA(4, 8))
    with pytest.raises(Refusal, match=r"adapter.*404.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        greedy(adapted, sampler=Server(url, tmp_path, 30))
    with pytest.raises(Refusal, match=r"no server answers at http://127.0.0.1:9 .*refused.*--engine own"):
        greedy(adapted, sampler=Server("http://127.0.0.1:9", tmp_path, 30))


def test_a_key_is_sent_and_never_said(tiny_folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded = load(str(tiny_folder))
    tell(url, "/fault", {"key": "sesame-1234"})
    with pytest.raises(Refusal, match=r"wants a key .*VLLM_API_KEY"):
        greedy(loaded, sampler=Server(url, tmp_path, 30))
    monkeypatch.setenv("VLLM_API_KEY", "sesame-1234")
    assert greedy(loaded, sampler=Server(url, tmp_path, 30)) == greedy(loaded)
    tell(url, "/fault", {"fault": "an error"})  # which repeats what it was sent
    with pytest.raises(Refusal, match="Bearer …") as refusal:
        greedy(loaded, sampler=Server(url, tmp_path, 30))
    assert "sesame" not in str(refusal.value)


@pytest.mark.parametrize("fault", ["weights not taken", "processed log-probs"])
def test_a_server_that_does_not_compute_as_the_trainer_does_stops_the_run(
    fault: str, tiny_folder: Path, url: str, tmp_path: Path
):
    loaded = load(str(tiny_folder))
    scorer = Scorer(loaded.domain, loaded.policy, Precision("fp32", "highest", {}), CPU, 4096, None, lambda: loaded.policy)
    draw = Drawing(scorer, Settings(limit=8, samples=2), Accelerator(cpu=True), Server(url, tmp_path, 30))
    agreement = draw(PROMPTS, 1)[1]
    assert agreement is not None and agreement.largest < 1e-4 and agreement.tokens > 6
    tell(url, "/fault", {"fault": fault})
    moved(loaded)
    with pytest.raises(StoppedRun, match=r"scored by the sampler and by the trainer.*a mean of 0.1 is allowed"):
        draw(PROMPTS, 1)


def run(output: Path, model: Path, **settings: Any) -> Any:
    letters = FunctionJudge(lambda prompt, response: float(sum(ch.isalpha() for ch in response)), "letters")
    prompts = [{"prompt": f"question {i}, please"} for i in range(7)]
    how = {"rounds": 2, "limit": 6, "samples": 3, "held_out": 2, "sample_prompts": 0, "threads": 1, "precision": "fp32"}
    return align(
        str(model), prompts, DPO(), output=output, judge=letters, quiet=True, learning_rate=1e-2, **{**how, **settings}
    )


def test_a_run_samples_on_a_server_and_says_how_far_it_agrees_and_what_it_took(
    tiny_folder: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VLLM_API_KEY", "sesame-1234")
    made = run(tmp_path / "x", tiny_folder, engine="vllm", server=url)
    rounds = [line for line in made.history if line["kind"] == "round"]
    assert len(rounds) == 2
    for line in rounds:
        assert 0 <= line["mismatch"] <= line["mismatch/largest"] < 1e-3
        assert line["seconds/sample"] > 0 and 0 < line["sampling"] < 1
    assert len([path for path, _ in tell(url, "/seen") if path == "/collective_rpc"]) == 2
    for path in (tmp_path / "x").rglob("*"):
        assert not path.is_file() or b"sesame" not in path.read_bytes()
    assert "of the time went into sampling" in (tmp_path / "x" / "report.html").read_text()


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({"rounds": 1, "engine": "vllm"}, "give its address"),
    "no engine": ({"rounds": 1, "server": "http://a"}, "does nothing without engine='vllm'"),
    "no rounds": ({"engine": "vllm", "server": "http://a"}, "engine='vllm' does nothing without rounds"),
    "no address of a server": ({"rounds": 1, "engine": "vllm", "server": "127.0.0.1:8000"}, "is no address of a server"),
    "a password": ({"rounds": 1, "engine": "vllm", "server": "http://u:secret@a"}, "holds no password"),
}


@pytest.mark.parametrize("name", list(ASKED))
def test_settings_of_a_server_that_contradict_each_other_are_refused(name: str, tiny_folder: Path, tmp_path: Path):
    settings, said = ASKED[name]
    with pytest.raises(Refusal, match=said) as refusal:
        run(tmp_path / "x", tiny_folder, **{"rounds": 0, **settings})
    assert "secret" not in str(refusal.value)

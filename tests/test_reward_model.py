"""A reward model trained by the one engine: its scores are those of `transformers`, however they are read, and a run speaks of
nothing that such a model does not have."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

import penchant as pn
from penchant.cli import main
from penchant.domains.base import Encoded, Want
from penchant.domains.text.classifiers import load_classifier
from penchant.domains.text.models import Loaded, LoRA, load
from penchant.domains.text.paths import ScoringPath
from penchant.engine.precision import Precision
from penchant.engine.settings import Settings
from penchant.engine.sources import Scorer
from penchant.errors import Refusal
from penchant.evaluation.diagnosis.material import gather
from penchant.feedback import open_source
from penchant.feedback.records import Row
from penchant.objectives import DPO, NLL, BradleyTerry
from penchant.rewards import Context, Judge, RewardModel, load_judge
from penchant.run import Run
from penchant.running.difficulty import margins
from penchant.running.judging import ready
from test_ranks import launched
from tiny import tiny_tokenizer

REWARD = Want(head="reward")
PLAIN_FLOATS = Precision("fp32", "highest", {})


def rows(n: int = 12) -> list[Row]:
    """Pairs of unequal lengths, two to a prompt."""
    words = ["good", "night", "cat", "sat", "on", "the", "mat", "thank", "you", "please", "happy", "day"]
    return [
        Row(i, "pairs", f"what is {words[i // 2]}", (" ".join(words[: 1 + i % 5]), " ".join(words[i % 7 :][:6]) + " no"))
        for i in range(n)
    ]


def scored(loaded: Loaded, encoded: Encoded, path: ScoringPath | None = None) -> torch.Tensor:
    if path is not None:
        loaded.policy.follow(path)
    return loaded.domain.score(loaded.policy, encoded, REWARD).logp


@pytest.fixture
def reward(tiny_folder: Path) -> Loaded:
    """With a head that is not zeros any more."""
    loaded = load(tiny_folder, head="reward")
    assert loaded.policy.reward is not None
    assert not loaded.policy.reward.weight.any(), "before training every reward is 0"
    torch.manual_seed(5)
    with torch.no_grad():
        loaded.policy.reward.weight.normal_()
    return loaded


def from_transformers(model: Any, tokenizer: Any, encoded: Encoded, batch: int) -> torch.Tensor:
    """What anybody else would get: ids padded on the right, as `transformers` reads them."""
    out = []
    flat = [torch.cat([x, y]).tolist() for x, y in encoded.flat]
    for i in range(0, len(flat), batch):
        padded = tokenizer.pad({"input_ids": flat[i : i + batch]}, return_tensors="pt", padding_side="right")
        with torch.no_grad():
            out.append(model.eval()(**padded).logits[:, 0])
    return torch.cat(out)


def test_a_score_is_the_same_however_rows_are_read(reward: Loaded):
    encoded = reward.domain.encode(rows())
    together = scored(reward, encoded, ScoringPath("tree", "hidden"))
    assert together.shape == (24, 1) and len(set(together[:, 0].tolist())) > 12
    for name in ("packed", "padded"):
        torch.testing.assert_close(scored(reward, encoded, ScoringPath(name, "hidden")), together, atol=1e-5, rtol=0)
    alone = torch.cat([scored(reward, encoded.select([i]), ScoringPath("tree", "hidden")) for i in range(len(encoded))])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_what_is_saved_is_what_transformers_loads_and_says(reward: Loaded, tmp_path: Path):
    encoded = reward.domain.encode(rows())
    ours = scored(reward, encoded)[:, 0].detach()
    reward.policy.save(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert type(model).__name__ == "LlamaForSequenceClassification" and model.config.num_labels == 1
    assert tokenizer.pad_token_id == model.config.pad_token_id not in reward.policy.stops
    for batch in (1, 8):
        torch.testing.assert_close(from_transformers(model, tokenizer, encoded, batch), ours, atol=1e-5, rtol=0)
    again = load(tmp_path, head="reward")
    torch.testing.assert_close(scored(again, encoded)[:, 0].detach(), ours, atol=1e-5, rtol=0)


def test_padding_that_is_the_stop_token_is_not_saved(tiny_folder: Path, tmp_path: Path):
    loaded = load(tiny_folder, head="reward")
    loaded.policy.tokenizer.pad_token = "<|im_end|>"  # transformers would read the state before it
    loaded.policy.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pad_token_id"] not in (None, *loaded.policy.stops)


def test_an_adapter_is_saved_with_its_head_as_peft_reads_it(tiny_folder: Path, tmp_path: Path):
    torch.manual_seed(3)
    loaded = load(tiny_folder, lora=LoRA(rank=4, alpha=8), head="reward")
    with torch.no_grad():
        for _, p in loaded.policy.named_trainable():
            p.normal_(std=0.3)
    encoded = loaded.domain.encode(rows())
    ours = scored(loaded, encoded)[:, 0].detach()
    loaded.policy.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = AutoPeftModelForSequenceClassification.from_pretrained(
            tmp_path, num_labels=1, pad_token_id=tokenizer.pad_token_id
        )
    torch.testing.assert_close(from_transformers(model, tokenizer, encoded, 8), ours, atol=1e-5, rtol=0)
    with pytest.raises(Refusal, match="adapter of a reward model"):
        load(tmp_path, head="reward")


def test_the_upper_layers_alone_train_under_the_head(tiny_folder: Path):
    loaded = load(tiny_folder, top=1, head="reward")
    names = [name for name, _ in loaded.policy.named_trainable()]
    assert "reward.weight" in names and not any("layers.0" in name or "embed" in name for name in names)
    whole, part = load(tiny_folder, head="reward"), loaded
    for one in (whole, part):
        assert one.policy.reward is not None
        torch.nn.init.ones_(one.policy.reward.weight)
    encoded = whole.domain.encode(rows())
    torch.testing.assert_close(scored(part, encoded), scored(whole, encoded), atol=1e-5, rtol=0)


def test_a_reward_model_makes_no_text_and_a_sum_reads_one_head(reward: Loaded, tmp_path: Path):
    with pytest.raises(Refusal, match="reads one head"):
        BradleyTerry() + 0.1 * NLL()
    with pytest.raises(Refusal, match="no head 'lm'"):
        reward.domain.score(reward.policy, reward.domain.encode(rows(2)))
    reward.policy.save(tmp_path)
    with pytest.raises(Refusal, match="is a reward model: it scores responses and makes none"):
        load(tmp_path)


# --- whole runs


def planted(n: int, start: int = 0) -> list[dict[str, str]]:
    """Whoever says thank you is preferred."""
    words = ["cat", "mat", "day", "night", "sad", "happy", "no", "yes"]
    said = [f"the {words[i % 8]} sat on the {words[i // 8 % 8]}" for i in range(start, start + n)]
    return [
        {"prompt": f"what is it {i}", "chosen": f"{text} thank you", "rejected": f"{text} please no"}
        for i, text in enumerate(said, start)
    ]


def trained(model: Path, output: Path, **settings: Any) -> Run:
    common: dict[str, Any] = {"learning_rate": 3e-3, "batch": 8, "epochs": 3, "held_out": 40, "precision": "fp32"}
    return pn.align(model, planted(120), BradleyTerry(), output=output, quiet=True, **common | settings)


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tiny_folder, tmp_path_factory.mktemp("rm") / "run", evaluate_every=10)


def test_a_run_learns_a_planted_preference_and_speaks_of_scores_only(run: Run):
    assert run.verdict.word == "learned", run.verdict
    after = run.evidence.pairs_after
    assert after is not None and not after.speaks and after.logp_chosen == []
    assert all(w > l for w, l in zip(after.reward_chosen, after.reward_rejected, strict=True))
    assert min(after.length_chosen) > 3, "lengths are tokens, not the one step that was scored"
    assert run.evidence.pairs_before is not None and not any(run.evidence.pairs_before.reward_chosen)
    assert run.evidence.samples_after is None
    asked = {finding.word for finding in run.verdict.findings}
    assert not asked & {"collapsed", "chosen falling", "length drift"}
    steps = [line for line in run.history if line["kind"] in ("step", "eval")]
    assert steps and not any(key.startswith(("logp", "length", "mass")) for line in steps for key in line)
    page = run.report.read_text(encoding="utf-8")
    assert "log π per token" not in page and "KL to the reference" not in page
    card = (run.model / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForSequenceClassification" in card and "generate" not in card
    assert "pipeline_tag: text-classification" in card


def test_evaluating_a_reward_model_needs_no_objective_and_prints_what_its_scores_are_worth(
    run: Run, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    unseen = tmp_path / "unseen.jsonl"
    unseen.write_text("".join(json.dumps(row) + "\n" for row in planted(40, 500)), encoding="utf-8")
    words = ["--reference", str(tiny_folder), "--data", str(unseen), "--precision", "fp32"]
    assert main(["evaluate", str(run.model), *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "✓ learned On 40 unseen pairs the model prefers the chosen response in 100.0 %" in out
    assert "As a reward model: 0.0 % [" in out and "of pairs have equal scores. Stated and true shares are" in out
    assert "No pair has responses of unequal length" in out or "people did in" in out


@pytest.mark.claims
@pytest.mark.parametrize("how", ["DDP", "FSDP2"])
def test_two_processes_train_the_reward_model_that_one_trains_and_go_on_where_they_stopped(
    how: str, run: Run, tiny_folder: Path, tmp_path: Path
):
    """The head is in the optimiser, its gradient is summed over processes, and it is put together when it is saved. A step alone
    is held to the last digits in test_ranks.py."""
    script, output = tmp_path / "run.py", tmp_path / "two"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_reward_model import trained\n"
        f"trained(Path({str(tiny_folder)!r}), Path({str(output)!r}), evaluate_every=10, save_every=10)\n"
        "import os; os._exit(0)\n"
    )
    env = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if how == "FSDP2" else {}
    env["PENCHANT_CACHE"] = str(tmp_path / "cache")
    launched(script, **env)
    two = Run.open(output)
    assert two.evidence.choices["spread"] == f"2 processes, {how}"
    a, b = (load_file(one.model / "model.safetensors") for one in (two, run))
    assert a.keys() == b.keys() and float(b["score.weight"].abs().max()) > 1e-3
    torch.testing.assert_close(a["score.weight"], b["score.weight"], rtol=0, atol=1e-5)
    back_to_the_last_but_one(output)
    launched(script, **env)
    again = load_file(Run.open(output).model / "model.safetensors")
    assert again.keys() == a.keys() and all(torch.equal(again[name], x) for name, x in a.items())


def back_to_the_last_but_one(output: Path) -> None:
    """As if killed before the last checkpoint and before anything that marks the run as finished was written."""
    last = sorted((output / "checkpoints").iterdir())[-1]
    for path in (output / "evidence.json", output / "verdict.json", *last.iterdir()):
        path.unlink()
    last.rmdir()


def test_the_card_says_how_to_get_the_scores_of_the_run(run: Run, capsys: pytest.CaptureFixture[str]):
    card = (run.model / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("PATH", str(run.model))
    exec(compile(code, "card", "exec"), {})  # our own words
    said = float(capsys.readouterr().out.strip().removeprefix("tensor(").split(",")[0].rstrip(")"))
    loaded = load(run.model, head="reward")
    encoded = loaded.domain.encode([Row(1, "labelled", "Hello!", ("Hello to you!",), label=True)])
    assert said == pytest.approx(scored(loaded, encoded).item(), abs=1e-3)


def test_a_run_goes_on_where_it_was_interrupted_to_the_same_scores(tiny_folder: Path, run: Run, tmp_path: Path):
    interrupted = trained(tiny_folder, tmp_path, evaluate_every=10, save_every=10)
    assert interrupted.evidence.pairs_after == run.evidence.pairs_after, "a run is a function of its settings"
    back_to_the_last_but_one(tmp_path)
    again = trained(tiny_folder, tmp_path, evaluate_every=10, save_every=10)
    assert again.evidence.pairs_after == run.evidence.pairs_after


def test_micro_batches_change_nothing(tiny_folder: Path, run: Run, tmp_path: Path):
    small = trained(tiny_folder, tmp_path, evaluate_every=10, tokens=64)
    assert small.evidence.pairs_after is not None and run.evidence.pairs_after is not None
    assert small.evidence.pairs_after.reward_chosen == pytest.approx(run.evidence.pairs_after.reward_chosen, abs=2e-3)


def test_what_a_reward_model_cannot_do_is_refused(tiny_folder: Path, tmp_path: Path):
    for settings, said in (
        ({"rounds": 2, "judge": "rules"}, "samples nothing"),
        ({"judge": "rules"}, "no samples to judge"),
    ):
        with pytest.raises(Refusal, match=said):
            trained(tiny_folder, tmp_path / "no", **settings)
    with pytest.raises(Refusal, match="is a reward model"):
        pn.align(
            trained(tiny_folder, tmp_path / "rm", steps=1).model, planted(40), DPO(), output=tmp_path / "b", quiet=True
        )


# --- as a judge


def test_a_trained_reward_model_judges_by_name_and_batches_change_nothing(run: Run):
    who = load_judge(f"reward:{run.model}")
    assert isinstance(who, RewardModel) and who.name == f"reward:{run.model}"
    loaded = load(run.model, head="reward")
    asked = [*rows(), Row(99, "pairs", ({"role": "user", "content": "what <|im_end|> is"},), ("yes", "no no no"))]
    prompts = [row.prompt for row in asked for _ in row.responses]
    responses = [text for row in asked for text in row.responses]
    ours = scored(loaded, loaded.domain.encode(asked))[:, 0].detach()
    for budget in (1, 64, 4096):  # one at a time, a few, all
        score = load_classifier(str(run.model), torch.device("cpu"), budget)
        assert score.pads
        judged = who.by(score)([Context(prompt) for prompt in prompts], responses)
        assert judged.valid.all()
        torch.testing.assert_close(judged.total, ours, atol=1e-5, rtol=1e-6)


def test_an_adapter_of_a_reward_model_judges_as_it_was_trained(tiny_folder: Path, tmp_path: Path):
    run = trained(tiny_folder, tmp_path, lora=4, steps=4, learning_rate=1e-2)
    after = run.evidence.pairs_after
    assert after is not None
    score = load_classifier(str(run.model), torch.device("cpu"), 4096)
    source = planted(120)
    held = [source[number - 1] for number in after.numbers]
    said = score([row["prompt"] for row in held], [row["chosen"] for row in held])
    assert said.tolist() == pytest.approx(after.reward_chosen, abs=1e-4)


def encoder(folder: Path, labels: int = 1) -> Path:
    """Somebody else's reward model: a small BERT without a chat template, which reads a pair of texts."""
    tokenizer = tiny_tokenizer(None)
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"pad_token_id": 0, "initializer_range": 0.5, "num_labels": labels}
    config = BertConfig(vocab_size=len(tokenizer), **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    torch.random.set_rng_state(state)
    tokenizer.save_pretrained(folder)
    return folder


def test_anybodys_reward_model_is_read_as_transformers_reads_it(tmp_path: Path, tiny_folder: Path):
    folder = encoder(tmp_path / "bert")
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts, responses = (
        ["what is it", "the cat"] * 3,
        ["good", "a bad day on the mat", "yes", "no", "thank you", "sad cat"],
    )
    score = load_classifier(str(folder), torch.device("cpu"), 4096)
    with torch.no_grad():
        each = [model(**tokenizer(x, y, return_tensors="pt")).logits[0, 0] for x, y in zip(prompts, responses, strict=True)]
    torch.testing.assert_close(score(prompts, responses), torch.stack(each), atol=1e-5, rtol=0)
    assert score(["cat " * 600], ["mat"]).isnan().all(), "a row past its positions is no judgement"
    with pytest.raises(Refusal, match="2 labels"):
        load_classifier(str(encoder(tmp_path / "two", labels=2)), torch.device("cpu"), 4096)
    with pytest.raises(Refusal, match="no model for sequence classification"):
        load_classifier(str(tiny_folder), torch.device("cpu"), 4096)


def test_a_finished_run_judges_by_the_reward_it_implies(tiny_folder: Path, tmp_path: Path):
    common: dict[str, Any] = {"learning_rate": 1e-3, "steps": 6, "held_out": 40, "precision": "fp32", "sample_prompts": 4}
    run = pn.align(tiny_folder, planted(120), DPO(beta=0.2), output=tmp_path / "dpo", quiet=True, **common)
    after = run.evidence.pairs_after
    assert after is not None and after.ref_chosen is not None
    source = planted(120)
    held = [source[number - 1] for number in after.numbers]
    beside = load(tiny_folder)
    scorer = Scorer(beside.domain, beside.policy, PLAIN_FLOATS, torch.device("cpu"), 4096, None, lambda: beside.policy)
    for name in (run.folder, run.model):
        judge = ready(load_judge(f"implicit:{name}"), scorer, Settings())
        assert isinstance(judge, Judge)
        said = judge([Context(row["prompt"]) for row in held], [row["chosen"] for row in held]).total
        assert said.tolist() == pytest.approx(after.reward_chosen, abs=1e-4)
        turned = [
            {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if i < 10 else row for i, row in enumerate(held)
        ]
        gaps = margins(judge)(gather(open_source(turned), 0).comparisons)
        assert all(gap is not None and (gap < 0) == (i < 10) for i, gap in enumerate(gaps))  # turned labels stand out
    other = pn.align(
        tiny_folder, planted(60), DPO(), output=tmp_path / "judged", quiet=True, judge=f"implicit:{run.folder}", **common
    )
    assert other.evidence.samples_after is not None and other.evidence.samples_after.scores is not None
    with pytest.raises(Refusal, match="holds no finished run"):
        ready(load_judge(f"implicit:{tiny_folder}"), scorer, Settings())

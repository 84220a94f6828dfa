"""The README.md that goes with a saved model: what was done, what came of it, how to use it and do it again.
No prompt or response appears in it; names that came from outside stand in code spans, where Markdown reads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from penchant.evaluation.evidence import RunEvidence
from penchant.evaluation.verdict import Verdict, before_after
from penchant.report import facts
from penchant.words import plain

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NAME = 2000
"""Characters of a name or sentence that a card repeats."""
KNOWN = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Hub ids behind our own aliases."""
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
"""The hub's licence identifiers, as "apache-2.0"; anything else stays out of the front matter."""


def model_card(evidence: RunEvidence, verdict: Verdict) -> str:
    """The model card as Markdown, with front matter that the hub reads."""
    parts = [
        front_matter(evidence),
        f"# {prose(facts.title(evidence, ' + '.join(facts.methods(evidence)) or 'penchant'))}",
        came_of_it(evidence, verdict),
        done(evidence),
        use(evidence),
        f"## Doing it again\n\n{block(facts.command(evidence), 'sh')}",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(evidence: RunEvidence) -> str:
    """What the hub reads; written by a YAML library, so that no name can break out of it."""
    model = str(evidence.settings.get("model", ""))
    base = KNOWN.get(model, model)
    dataset = str(evidence.data.get("source", "")).partition(":")[0]  # a split may follow
    about = evidence.choices.get("model")
    licence = about.get("licence") if isinstance(about, Mapping) else None
    head: dict[str, Any] = {
        "base_model": base if on_hub(base) else None,
        "library_name": library(evidence),
        "pipeline_tag": TASKS.get(evidence.makes),
        "tags": [
            "penchant",
            "reward-model" if evidence.makes == "scores" else "preference-alignment",
            *(name.lower() for name in facts.methods(evidence)),
        ],
        "datasets": [dataset] if on_hub(dataset) else None,
        "license": licence if isinstance(licence, str) and LICENCE.fullmatch(licence) else None,
    }
    known = {name: value for name, value in head.items() if value is not None}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=False)}---"


TASKS = {"text": "text-generation", "scores": "text-classification", "pictures": "text-to-image", "policies": "robotics"}
"""The hub's name of what a model does, by what it makes."""


def library(evidence: RunEvidence) -> str:
    """Who loads the model."""
    if evidence.choices.get("domain") == "policies":
        return "penchant"
    if evidence.makes == "pictures":
        return "diffusers"
    return "peft" if is_adapter(evidence) else "transformers"


def on_hub(name: str) -> bool:
    """Whether a name is a hub id rather than a folder or file of this machine."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def is_adapter(evidence: RunEvidence) -> bool:
    """Whether what was saved is an adapter on a base model: a new one, or a given one that was continued."""
    about = evidence.choices.get("model")
    return bool(evidence.settings.get("lora")) or (isinstance(about, Mapping) and about.get("base") is not None)


def came_of_it(evidence: RunEvidence, verdict: Verdict) -> str:
    """The verdict and the table."""
    lines = [f"## What came of it: {prose(verdict.word)}", ""]
    lines += [f"- **{prose(f.word)}**: {prose(f.sentence)}" for f in verdict.findings if f.holds]
    rows = before_after(evidence)
    if rows:
        lines += ["", f"{facts.where(evidence)} Brackets hold 95 % intervals.", ""]
        lines += ["| | before | after | change | |", "|---|--:|--:|--:|---|"]
        for row in rows:
            cells = [prose(row.name), *map(prose, row.cells), "" if row.word == "neutral" else row.word]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def done(evidence: RunEvidence) -> str:
    """What was run, on what."""
    lines = ["## What was done", "", f"- model: {code(facts.named(evidence, 'model'))}"]
    lines.append(f"- objective: {code(facts.named(evidence, 'objective'))}")
    for name, equation, source in facts.equations(evidence):
        lines.append(f"  - {name}: {code(equation)}" + (f" ({prose(source)})" if source else ""))
    given = facts.split(evidence)
    lines.append(
        f"- data: {code(evidence.data.get('source') or facts.named(evidence, 'data'))}{f'; {given}' if given else ''}"
    )
    counts = facts.accounting(evidence)
    if counts:
        lines.append("- rows: " + ", ".join(f"{facts.number(n)} {prose(words)}" for words, n in counts))
    for who, word in (("judge", "judge"), ("guard", "independent judge")):
        if evidence.settings.get(who):
            lines.append(f"- {word} of the samples: {code(evidence.settings[who])}")
    took = f" in {facts.duration(evidence.seconds)}" if evidence.seconds else ""
    lines.append(f"- {facts.number(facts.steps(evidence))} optimiser steps{took}")
    return "\n".join(lines)


def prose(text: object) -> str:
    """Text on one line in which Markdown, HTML and bare links are only characters."""
    said = " ".join(plain(text, NAME).split())
    said = "".join(f"\\{ch}" if ch in "\\`*_{}[]<>#|~$!&@" else ch for ch in said)
    said = re.sub(r"(?i)\b(https?|ftp)://", r"\1\\://", said)
    return re.sub(r"(?i)\bwww\.", r"www\\.", said)


def code(text: object) -> str:
    """A code span that its text cannot end: the fence is longer than any run of backticks in it."""
    said = " ".join(plain(text, NAME).split()) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", said)), default=0) + 1)
    return f"{fence} {said} {fence}" if "`" in said else f"{fence}{said}{fence}"


def block(text: str, language: str = "") -> str:
    """A code block that its text cannot end."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{plain(text)}\n{fence}"


def use(evidence: RunEvidence) -> str:
    """How whoever finds the model gets something out of it: text, or a score."""
    if evidence.speaks:
        return USE_ADAPTER if is_adapter(evidence) else USE
    about = evidence.choices.get("model")
    if evidence.makes == "policies":
        return f"{HOW}\n\n{block(ACTS, 'python')}\n\n{PATH}"
    if evidence.makes == "pictures":
        return pictured(str(evidence.settings.get("model", "")), about, is_adapter(evidence))
    stop = about.get("stop") if isinstance(about, Mapping) else None
    given = f"{plain(stop) if isinstance(stop, str) else ''}"
    lines = [
        "from peft import AutoPeftModelForSequenceClassification\nfrom transformers import AutoTokenizer"
        if is_adapter(evidence)
        else "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("PATH")',
        'model = AutoPeftModelForSequenceClassification.from_pretrained(\n    "PATH", num_labels=1, '
        "pad_token_id=tokenizer.pad_token_id\n)"
        if is_adapter(evidence)
        else 'model = AutoModelForSequenceClassification.from_pretrained("PATH")',
        'chat = [{"role": "user", "content": "Hello!"}]',
        "prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)",
        "read = lambda text: tokenizer(text, add_special_tokens=False).input_ids",
        f'ids = read(prompt) + read("Hello to you!" + {given!r})',
        'print(model(**tokenizer.pad({"input_ids": [ids]}, return_tensors="pt")).logits[0, 0])',
    ]
    return f"{HOW}\n\n{block(chr(10).join(lines), 'python')}\n\n{SCORES}"


def pictured(name: str, about: Any, adapter: bool) -> str:
    """The same of a model of pictures: its pipeline, or a small model of classes."""
    if isinstance(about, Mapping) and about.get("kind") == "pixels":
        lines = [
            *(["from peft import PeftModel\n"] if adapter else []),
            "from penchant.domains.diffusion.domain import Pictures",
            "from penchant.domains.diffusion.loading import load",
            "",
            f"policy, _ = load({name!r})" if adapter else 'policy, _ = load("PATH")',
            *(['policy.model = PeftModel.from_pretrained(policy.model, "PATH").merge_and_unload()'] if adapter else []),
            "samples = Pictures(policy).sample(policy, [policy.conditioner.names[0]], scored=False)",
            'samples.shown[0][0].save("picture.png")',
        ]
    else:
        lines = [
            "from diffusers import DiffusionPipeline",
            "",
            f"pipe = DiffusionPipeline.from_pretrained({name if adapter else 'PATH'!r})",
            *(['pipe.load_lora_weights("PATH")'] if adapter else []),
            'pipe("a lighthouse at dusk").images[0].save("picture.png")',
        ]
    return f"{HOW}\n\n{block(chr(10).join(lines), 'python')}\n\n{PATH}"


ACTS = """\
from penchant.domains.policy.domain import Behaviour
from penchant.domains.policy.policy import load

policy = load("PATH")
samples = Behaviour(policy).sample(policy, [f"{policy.tasks[0]} seed 1"], limit=200, temperature=0.0)
print(samples.shown[0][0].rewards.sum())"""

PATH = "PATH is the folder this file lies in, or the model's name on the hub."

HOW = "## How to use it"

SCORES = """\
PATH is the folder this file lies in, or the model's name on the hub. The score is read at the token that ends the response; only
differences between responses to one prompt mean something. `penchant` judges with it as `--judge reward:PATH`."""

USE = """\
## How to use it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (kind.from_pretrained("PATH") for kind in (AutoModelForCausalLM, AutoTokenizer))
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Hello!"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100)[0], skip_special_tokens=True))
```

PATH is the folder this file lies in, or the model's name on the hub."""

USE_ADAPTER = USE.replace(
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer",
).replace("(AutoModelForCausalLM, AutoTokenizer)", "(AutoPeftModelForCausalLM, AutoTokenizer)")

LIMITS = """\
## Limits

The model learned what the people or the judge named above preferred, on this data, and nothing else: neither truth nor
safety was measured unless the table says so. The numbers hold for prompts like those held out. What the base model
gets wrong, this one may get wrong too; its licence applies. Made with penchant, which wrote this card from the run's
own record."""

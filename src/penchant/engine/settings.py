"""Every setting of a run, once: the flags, the recipe file, the help and the docs are made from this class.
It holds no method's hyper-parameters (those are the objective's own fields) and imports no torch."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from penchant.errors import Refusal, nearest
from penchant.words import brief

Whole = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _part(said: str) -> str:
    if not re.fullmatch(r"all|top:[1-9][0-9]*", said):
        raise PydanticCustomError("part", "what trains must be 'all', or so many upper layers as in 'top:6'")
    return said


class Settings(BaseModel):
    """How a run is carried out. What is optimised is the objective's business."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    # Training
    epochs: Whole = 1
    """Passes over the data; on-policy, passes over each round's pairs."""
    steps: Whole | None = None
    """Stop after this many optimiser steps, however many epochs that is (offline only)."""
    batch: Whole = 16
    """Rows (pairs, labelled responses, lists) per optimiser step, over all machines."""
    learning_rate: Above = 1e-5
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes down after warm-up."""
    warmup: Share = 0.1
    """Share of the run over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's decoupled weight decay."""
    clip: Above = 1.0
    """Largest gradient norm; longer gradients are scaled down to it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides shuffling, splitting, sampling and new adapters' weights."""
    tokens: Whole = 4096
    """Token budget of a micro-batch: memory follows it, results do not."""
    max_memory: Above | None = None
    """GiB that each process may hold: `tokens` is chosen so that the run keeps to it, by measuring at the start."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward pass; auto measures this machine and prints what it chose. Weights stay float32."""
    timeout: Above = 600
    """Seconds that one process of a run waits for another before it gives it up."""
    threads: Count = 0
    """Torch threads; 0 takes OMP_NUM_THREADS where it is set, else one per core."""

    # Model
    train: Annotated[str, AfterValidator(_part)] = "all"
    """What trains: all, or top:N, the last N layers with the final norm. Then the layers below, the embedding and the head
    stay as they are; what they make of a row is computed once and kept in the cache. With lora: where adapters go."""
    history: tuple[str, ...] = ()
    """Saved models or adapters of earlier phases, newest first, for objectives that are held against a history."""
    lora: Count = 0
    """Rank of a new LoRA adapter; 0 trains all weights."""
    lora_alpha: Whole | None = None
    """Scale of the adapter's update; unset: twice the rank."""
    lora_targets: str = "all-linear"
    """Modules that get an adapter, in peft's words: all-linear, names with commas between, or one regular expression."""
    revision: str | None = None
    """Revision of a hub model; the commit it resolves to is recorded."""
    allow_bin: bool = False
    """Accept weights in .bin files, which are unpickled: only for files you trust."""

    # Data
    held_out: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Prompts (or rows, by `split`) kept out of training to judge the run: a share below 1, or a number of them."""
    split: Literal["prompt", "row"] = "prompt"
    """What is kept out together: all rows of a prompt; or single rows, where prompts are a few classes or tasks and the question
    is not whether a new one is learned."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Decides which prompts those are, so that runs with different seeds can be judged on the same; unset: the seed."""
    template: Literal["auto", "none"] = "auto"
    """auto: string prompts become one user turn of the model's chat template; none: text is taken as it stands."""
    max_length: Whole = 1024
    """Longest prompt + response, in tokens."""
    too_long: Literal["drop", "truncate", "error"] = "drop"
    """What happens to a row over max_length; every one is counted."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """What happens to rows that cannot be read; dropped ones are counted."""
    goals: tuple[float, float] | None = None
    """Put scored pairs or lists under goals, each response preferred where its own score is asked for, and answer held-out
    prompts under the highest: the lowest and the highest score of the scale, as 1,10."""
    allow_lost: Share = 0.05
    """The run stops where more than this share of the rows would be lost."""

    # Pictures
    kappa: Above | None = None
    """How much log π falls by a mean squared error of 1, in which pictures are scored; unset: by the kind of model."""
    paper_beta: Above | None = None
    """The same in the scale of the papers' code, 2·β·κ (β·κ of DiffusionKTO): κ follows from it and the objective's beta."""
    weighting: str | None = None
    """How the error counts at each noise level: none (unset), eps-equivalent, or min-snr-5 with any other number."""
    denoising_steps: Whole | None = None
    """Steps by which pictures are drawn; unset: by the kind of model."""
    guidance: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """Classifier-free guidance with which they are drawn, 1 is none; unset: by the kind of model."""
    size: Whole | None = None
    """Pixels of a picture's side; unset: the model's own."""

    # On-policy
    rounds: Count = 0
    """Rounds of sampling, judging and training; 0 trains on the data as it is."""
    prompts_per_round: Count = 0
    """Prompts sampled in each round; 0 takes all."""
    samples: Annotated[int, Field(ge=2)] = 4
    """Responses sampled for each prompt of a round."""
    limit: Whole = 64
    """Longest sampled response, in tokens."""
    temperature: Above = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of tokens with this much probability."""
    pairing: Literal["best-worst", "all", "ranked", "baseline", "star", "borda", "tideman", "merge"] = "best-worst"
    """How judged samples become pairs. The first three go by scores and give the column margin; the others rank by
    comparisons and give strength."""
    engine: Literal["own", "vllm"] = "own"
    """Who samples a round: the model itself, or a vLLM server that is given its weights."""
    server: str | None = None
    """Address of that server, as http://127.0.0.1:8000; its key, where it wants one, stands in VLLM_API_KEY."""

    # Judging the run
    evaluate_every: Count = 0
    """Steps between evaluations: held-out pairs scored, held-out prompts answered once each; 0: before and after only."""
    sample_prompts: Count = 16
    """Held-out prompts that are answered before and after, for the report and the verdict."""
    sample_count: Whole = 2
    """Responses to each of them."""

    # Keeping
    save_every: Count = 50
    """Steps between checkpoints; 0: only at the end of the run or when it is interrupted."""
    keep: Whole = 2
    """Checkpoints kept, besides the best one."""
    overwrite: bool = False
    """Replace another run that lies in the output folder."""
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Experiment trackers to report to; none by default."""
    report_samples: bool = True
    """Whether texts of data and model appear in the report and the evidence."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Settings:
        """Settings from names and values; anything wrong is one sentence that names the setting and what is allowed."""
        for name in values:
            if name not in cls.model_fields:
                raise Refusal(f"there is no setting {name!r}; {nearest(name, cls.model_fields)}")
        try:
            return cls(**values)
        except ValidationError as error:
            said = []
            for problem in error.errors():
                name = str(problem["loc"][0]) if problem["loc"] else "settings"
                said.append(f"{name}={brief(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}.")
            raise Refusal(" ".join(said)) from None

    @property
    def thread_count(self) -> int:
        """Torch threads of this run on this machine."""
        # OpenMP allows a list, whose first number is for threads that are not nested
        said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        return self.threads or (int(said) if said.isdecimal() else 0) or os.cpu_count() or 1

    @property
    def top(self) -> int | None:
        """How many upper layers train; None: all of the model."""
        return None if self.train == "all" else int(self.train.removeprefix("top:"))

    def identity(self) -> dict[str, Any]:
        """What decides the run's results: its weights, and what is measured before and after, which must be measured alike.
        Two runs that agree in this are the same run; how often one is looked at or saved on the way changes nothing."""
        apart = {"server", "threads", "timeout", "evaluate_every", "save_every", "keep"}
        apart |= {"overwrite", "trackers", "report_samples"}
        return self.model_dump(mode="json", exclude=apart)

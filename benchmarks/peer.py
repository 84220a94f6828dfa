"""The other library: TRL's DPO trainer as its users run it, held before every step so that others can take their turn. Its
own loop runs, in a thread; nothing of it is rewritten."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import torch
import trl.kernels.chunked_logprob
import trl.trainer.utils
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer
from workload import BETA, MAX_LENGTH, RATE, as_chat

from penchant.domains.text.smollm2 import folder
from penchant.feedback.records import Row

NAME = f"TRL {version('trl')}"
BEST: dict[str, Any] = {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
"""What makes its step fastest here: nothing computed twice, and the reference's log-probs before the first step."""

disable_progress_bars()
logging.disable_progress_bar()
logging.set_verbosity_error()


def model() -> Any:
    """The packaged model, in float32, as the trainer itself would load it."""
    return AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float32)


def trainer(
    rows: Sequence[Row], batch: int, own: Any = None, ref: Any = None, peft: Any = None, **options: Any
) -> DPOTrainer:
    """With its defaults but for `options`. own and ref: models already loaded; by default it loads them."""
    config = DPOConfig(
        tempfile.mkdtemp(prefix="peer-"),
        per_device_train_batch_size=batch,
        max_length=MAX_LENGTH,
        beta=BETA,
        learning_rate=RATE,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    given = Dataset.from_list(as_chat(rows))
    return DPOTrainer(own or str(folder()), ref, args=config, train_dataset=given, peft_config=peft)


class Over(Exception):
    """No further step is wanted: raised in the trainer's loop, which would else take one more before it looks."""


class Stepped(TrainerCallback):
    """A trainer that takes one step at a call: its next batch, the training step, clipping, AdamW, its schedule and its log."""

    def __init__(self, held: DPOTrainer) -> None:
        self.held, self.error = held, None
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._over = False
        held.add_callback(self)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def __call__(self) -> None:
        self._go.release()
        self._wait()

    def stop(self) -> None:
        self._over = True
        self._go.release()
        self._thread.join()

    def _wait(self) -> None:
        self._there.acquire()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            torch.set_num_threads(1)  # a thread has its own count
            self.held.train()
        except Over:
            pass
        except BaseException as error:  # handed to the thread that waits, which raises it
            self.error = error
        finally:
            self._there.release()

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._there.release()
        self._go.acquire()
        if self._over:
            raise Over


def stepped(rows: Sequence[Row], **options: Any) -> Stepped:
    """Steps on these rows, all of them in every step."""
    return Stepped(trainer(rows, len(rows), max_steps=10_000, save_strategy="no", **options))


@contextmanager
def head_on_completions() -> Iterator[None]:
    """Its head as it works on a GPU: put on the positions that are scored. On a CPU it is put on all, padding too."""
    with patch.object(trl.trainer.utils, "_use_triton", lambda device: True):
        yield


@contextmanager
def head_products_in_bf16() -> Iterator[None]:
    """And its head's backward products in bf16, as on a GPU; on a CPU they are widened to float32 first."""

    def add(acc: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        acc += a @ b

    with head_on_completions(), patch.object(trl.kernels.chunked_logprob, "_addmm_fp32", add):
        yield

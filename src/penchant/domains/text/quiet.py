"""Models are loaded without what `transformers` prints on the way. What is wrong with a model is refused elsewhere, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress bars of `transformers` and the hub, which would draw over the caller's own, and without the table
    of tensors that a model did not take: what it lacks is refused by whoever loads it."""
    bars, told = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(told)
        if bars:
            logging.enable_progress_bar()

"""One model's way of writing a conversation as ids: its template, its BOS, the token that ends its turn.
It encodes single prompts and completions; what is done with rows of feedback stands in text.py."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from penchant.errors import Refusal
from penchant.feedback.records import Message, Prompt, Span
from penchant.words import brief

Template = Literal["auto", "none"]
"""auto: the model's own chat template where it has one. none: prompts are raw text, written by their owner."""


class Unfit(ValueError):
    """A row that cannot be encoded: the short reason under which it is counted, and the sentence for its owner."""

    def __init__(self, reason: str, said: str, field: str = "prompt", value: str = "") -> None:
        super().__init__(said)
        self.reason, self.said, self.field, self.value = reason, said, field, value


class Chat:
    """Canonical ids: a prompt is the template with its generation prompt, a completion is its text encoded alone and the
    token that ends the turn, and a training row is the one after the other."""

    def __init__(self, tokenizer: Any, template: Template = "auto", eos: Iterable[int] = ()) -> None:
        """`tokenizer`: a `transformers` tokenizer. `eos`: ids at which the model's generation config stops."""
        if template not in ("auto", "none"):
            raise Refusal(f"template={template!r} is unknown; it must be 'auto' or 'none'.")
        self.tokenizer = tokenizer
        self.templated = template == "auto" and tokenizer.chat_template is not None
        self.special = sorted(
            (t.content for t in tokenizer.added_tokens_decoder.values() if t.special and t.content), key=len, reverse=True
        )
        self.bos = self._own_bos()
        self.stop = self._end_of_turn()
        self.stops = frozenset(eos) | {self.stop} | ({tokenizer.eos_token_id} - {None})
        """Ids at which sampling ends."""
        self.stop_text: str = tokenizer.convert_ids_to_tokens(self.stop)

    # --- prompts

    def render(self, prompt: Prompt, reply: str | None = None) -> str:
        """What the template makes of a prompt: with its generation prompt, or with the whole reply."""
        turns: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if reply is not None:
            turns.append({"role": "assistant", "content": reply})
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=reply is None)

    def whole(self, prompt: Prompt, reply: str) -> Tensor:
        """The ids of the chat with its answer as the template writes the whole of it, int64 [tokens], read as a prompt is: text of
        a special token in a message is plain text. Raises Unfit."""
        return self._bounded(self._templated(prompt, reply))

    def prompt(self, prompt: Prompt) -> Tensor:
        """The prompt's ids, int64 [tokens], with one BOS if the model has one. Text of a special token inside a message is
        read as plain text, so that no message can open or close a turn; a raw string (no template) is its owner's own
        rendering and is read as it stands. Raises Unfit."""
        everything = prompt if isinstance(prompt, str) else "".join(turn["content"] for turn in prompt)
        if any("\ud800" <= ch <= "\udfff" for ch in everything):  # from a shell's arguments; a file's were refused before
            raise Unfit(
                "lone surrogate", "the prompt holds bytes that are no text, which no tokenizer takes; write it in UTF-8."
            )
        if not self.templated:
            if not isinstance(prompt, str):
                raise Refusal(
                    "the prompt is a list of chat turns, but there is no chat template to write them with: "
                    "give prompts as strings, or a model that has a template and template='auto'."
                )
            ids = self._ids(prompt)
        else:
            ids = self._templated(prompt)
        return self._bounded(ids)

    def _bounded(self, ids: list[int]) -> Tensor:
        """With one BOS if the model has one. Raises Unfit where there is nothing."""
        if self.bos is not None:
            while ids[:1] == [self.bos]:
                ids = ids[1:]
            ids = [self.bos, *ids]
        if not ids:
            raise Unfit("empty prompt", "the prompt has no tokens, so nothing predicts the first token of the answer.")
        return torch.tensor(ids, dtype=torch.long)

    def _templated(self, prompt: Prompt, reply: str | None = None) -> list[int]:
        turns: tuple[Message, ...] = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
        turns = turns if reply is None else (*turns, {"role": "assistant", "content": reply})
        everything = "".join(turn["content"] for turn in turns)
        forged = [special for special in self.special if special in everything]
        mark = "\ue000"
        while mark in everything:
            mark += "\ue000"
        names = {f"{mark}{i}\ue001": special for i, special in enumerate(forged)}
        safe = []
        for turn in turns:
            content = turn["content"]
            for name, special in names.items():
                content = content.replace(special, name)
            safe.append({**turn, "content": content})
        try:
            text = self.render(tuple(safe)) if reply is None else self.render(tuple(safe[:-1]), safe[-1]["content"])
        except Exception as error:  # a template is a program of its own, and may raise anything at a prompt it dislikes
            said = f"the model's chat template does not take this prompt: {brief(str(error), 200)}"
            raise Unfit("template refuses the prompt", said) from error
        pieces = re.split("|".join(f"({re.escape(name)})" for name in names), text) if names else [text]
        ids: list[int] = []
        for piece in filter(None, pieces):
            ids += self._ids(names.get(piece, piece), plain=piece in names)
        return ids

    def check(self, prompt: Prompt, reply: str) -> bool:
        """Whether the template writes the whole chat as prompt, reply, end of turn. False where it writes the reply
        otherwise (trims it, strips thoughts). Raises Unfit where the prompt itself comes out otherwise."""
        if not self.templated:
            return True
        start = self.render(prompt)
        try:
            whole = self.render(prompt, reply)
        except Exception as error:  # as in `_templated`: it took the prompt, and not the answer after it
            said = f"the model's chat template does not take an answer after this prompt: {brief(str(error), 200)}"
            raise Unfit("template refuses the answer", said) from error
        if not whole.startswith(start):
            raise Unfit(
                "template rewrites the prompt",
                "the model's chat template writes this prompt otherwise once the answer follows, so the model would be "
                "trained on a prompt it never sees; use a shorter conversation, another template, or template='none'.",
            )
        return whole[len(start) :].startswith(reply + self.stop_text)

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template writes a system turn."""
        mark = "penchant's system turn"
        turns: tuple[Message, ...] = ({"role": "system", "content": mark}, {"role": "user", "content": "a"})
        try:
            return self.templated and mark in self.render(turns)
        except Exception:  # a template is a program of its own; one that knows no system turn may raise anything
            return False

    # --- completions

    def completion(self, text: str, whole: bool = True) -> Tensor:
        """The text encoded alone, then the stop token once, int64 [tokens]. Text of special tokens is plain text, except
        for one stop token that its owner has already written at the end. One that is not `whole` was cut off: it is
        encoded as it stands, since a stop token would teach to end in the middle of a sentence."""
        text, end = self._spoken(text, whole)
        return torch.tensor([*self._ids(text, plain=True), *end], dtype=torch.long)

    def weights(self, text: str, whole: bool, spans: Iterable[Span]) -> Tensor:
        """How much each token of `completion(text, whole)` counts, float32 [tokens]: the mean over its characters, each of
        which counts 1 unless a span says otherwise; the stop token counts 1. Raises Refusal."""
        if not self.tokenizer.is_fast:
            raise Refusal(
                "weights of parts need a tokenizer that tells where each token stands in the text; this one is slow."
            )
        text, end = self._spoken(text, whole)
        each = torch.ones(len(text) + 1)
        for start, stop, weight in spans:
            each[start : min(stop, len(text))] = weight
        read = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        return torch.stack(
            [*(each[a : max(b, a + 1)].mean() for a, b in read.offset_mapping), *(each.new_ones(()) for _ in end)]
        )

    def _spoken(self, text: str, whole: bool) -> tuple[str, list[int]]:
        """What of a completion is encoded as text, and the stop token after it."""
        if not whole:
            return text, []
        bare = text.rstrip()
        return (bare[: -len(self.stop_text)] if bare.endswith(self.stop_text) else text), [self.stop]

    def text(self, ids: Tensor) -> str:
        """The ids as text, without a stop token at their end."""
        kept = ids[:-1] if len(ids) and int(ids[-1]) in self.stops else ids
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # --- what the tokenizer and the template say of themselves

    def _ids(self, text: str, plain: bool = False) -> list[int]:
        if not text:
            return []
        # verbose would log that a text is longer than the model reads; what becomes of such a row is counted elsewhere
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain, verbose=False).input_ids

    def _own_bos(self) -> int | None:
        """The BOS that the tokenizer puts before every text by itself; None for a model trained without one."""
        ids = self.tokenizer("a").input_ids
        return ids[0] if ids and ids[0] == self.tokenizer.bos_token_id else None

    def _end_of_turn(self) -> int:
        """The first special token that the template writes after a reply, else the tokenizer's EOS."""
        if self.templated:
            reply = "penchant"
            try:
                _, found, after = self.render("a", reply).rpartition(reply)
            except Exception as error:
                raise Refusal(
                    f"the chat template cannot write one question and its answer: {brief(str(error), 200)}"
                ) from error
            if not found:
                raise Refusal("the chat template leaves the answer out; use template='none' or a model with another one.")
            special = {i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
            for token in self._ids(after):
                if token in special:
                    return token
        if self.tokenizer.eos_token_id is None:
            raise Refusal(
                "the tokenizer names no EOS token and its template ends a turn with none, so no answer could ever end; "
                "set eos_token in tokenizer_config.json."
            )
        return self.tokenizer.eos_token_id

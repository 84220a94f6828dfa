"""Text as something to align: rows of feedback become ids, ids are scored and sampled, each in one way for training,
evaluation and generation alike. How a model writes a conversation stands in chat.py, how it computes in policy.py."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penchant.domains.base import Cost, Encoded, Samples, Sparse, Want, masks
from penchant.domains.columns import BATCHES, columns_of
from penchant.domains.text import chat as chat_module
from penchant.domains.text.chat import Chat, Template, Unfit
from penchant.domains.text.extras import ADVANTAGE, SECOND, check
from penchant.domains.text.merging import merge, parts, unmerged
from penchant.domains.text.policy import PLAIN, unwrap
from penchant.domains.text.reward_head import read_to_the_end
from penchant.domains.text.sampling import Sampler, generate
from penchant.errors import Refusal
from penchant.feedback.goals import Goals
from penchant.feedback.records import STOPPED, Accounting, Problem, Prompt, Row
from penchant.files import fingerprint
from penchant.objectives.scored import Rollouts, Scored
from penchant.words import brief

TooLong = Literal["drop", "truncate", "error"]
"""What happens to a row longer than max_length: left out and counted; its answers cut at the end and counted; refused."""


class Text:
    """A language model's view of feedback. Prompt ids are the template with its generation prompt; completion ids are the
    completion encoded alone and the turn's stop token; what is trained on is their concatenation."""

    name, noisy = "text", False

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: Template = "auto",
        max_length: int = 1024,
        too_long: TooLong = "drop",
        eos: Iterable[int] = (),
        positions: int | None = None,
        goals: Goals | None = None,
    ) -> None:
        """`max_length`: tokens of prompt and response together, at most the `positions` the model has. `eos`: ids at which
        the model's generation config stops. `goals`: the scale of scores the model was trained towards."""
        if too_long not in ("drop", "truncate", "error"):
            raise Refusal(f"too_long={too_long!r} is unknown; it must be 'drop', 'truncate' or 'error'.")
        for name, most in (("max_length", max_length), ("the positions of the model", positions)):
            if most is not None and most < 2:
                raise Refusal(f"{name}={most}: a prompt and a response need at least 2 tokens.")
        self.chat = Chat(tokenizer, template, eos)
        self.positions = positions
        self.goals = goals
        self.max_length = max_length if positions is None else min(max_length, positions)
        self.too_long: TooLong = too_long
        vocabulary = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else json.dumps(tokenizer.get_vocab())
        code = "".join(Path(file).read_text(encoding="utf-8") for file in (__file__, str(chat_module.__file__)))
        self.fingerprint = fingerprint(
            vocabulary,
            json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str),
            json.dumps([tokenizer.chat_template, template, self.max_length, too_long, sorted(self.chat.stops)]),
            code,
        )
        """A name for everything that decides which ids a row becomes: tokenizer, template, options and this code."""

    # --- encode

    def encode(self, rows: Iterable[Row]) -> Encoded:
        """Rows of one kind to ids. What is left out, cut or written otherwise by the template is counted in `accounting`,
        with the first rows' numbers; strength and margin are NaN, and the annotator −1, where a row has none."""
        account = Accounting()
        kept: list[Row] = []
        contexts: list[Tensor] = []
        responses: list[tuple[Tensor, ...]] = []
        kind = None
        for row in rows:
            kind = kind or row.kind
            if row.kind != kind:
                raise Refusal(f"row {row.number} is of the kind {row.kind!r}, but the rows before are {kind!r}.")
            account.read += 1
            try:
                context, answers = self._row(row, account)
            except Unfit as unfit:
                account.drop(unfit.reason, Problem(row.number, unfit.field, unfit.value, unfit.said))
                continue
            kept.append(row)
            contexts.append(context)
            responses.append(answers)
        account.kept = len(kept)
        account.weighted = sum(row.weights is not None for row in kept)
        columns, annotators = columns_of(kind or "prompts", kept)
        return Encoded(
            data=BATCHES[kind or "prompts"],
            contexts=tuple(contexts),
            responses=tuple(responses),
            numbers=tuple(row.number for row in kept),
            columns=columns,
            annotators=annotators,
            accounting=account,
            weights=tuple(map(self._weights, kept, responses)) if account.weighted else None,
        )

    def _weights(self, row: Row, answers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """How much each token counts, as far as the answers were kept."""
        if row.weights is None:
            return tuple(torch.ones(len(answer)) for answer in answers)
        parts = zip(row.responses, _wholes(row), row.weights, answers, strict=True)
        return tuple(self.chat.weights(reply, whole, spans)[: len(answer)] for reply, whole, spans, answer in parts)

    def _row(self, row: Row, account: Accounting) -> tuple[Tensor, tuple[Tensor, ...]]:
        try:
            prompt = self.chat.prompt(row.prompt)
            as_written = [self.chat.check(row.prompt, reply) for reply in row.responses]
        except Refusal as refusal:
            raise Refusal(f"row {row.number}: {refusal}") from refusal
        wholes = _wholes(row)
        answers = [self.chat.completion(reply, whole) for reply, whole in zip(row.responses, wholes, strict=True)]
        room = self.max_length - len(prompt)
        size = len(prompt) + max(map(len, answers), default=1)
        cut = size > self.max_length
        if cut:
            where = "prompt" if room < 1 else "response"
            said = f"it has {size:,} tokens ({len(prompt):,} of them the prompt), but max_length is {self.max_length:,}"
            if self.too_long == "error":
                raise Refusal(
                    f"row {row.number}, {where}: {said}; raise max_length, or choose too_long 'drop' or 'truncate'."
                )
            if room < 1:
                raise Unfit("prompt too long", f"{said}: nothing is left for the response.", where)
            if self.too_long == "drop":
                raise Unfit("too long", f"{said}; raise max_length, or choose too_long='truncate'.", where)
            answers = [answer[:room] for answer in answers]
        if row.kind == "pairs" and torch.equal(*answers):
            account.identical += cut
            reason = "identical after truncation" if cut else "identical"
            raise Unfit(reason, "chosen and rejected are the same tokens, so there is nothing to prefer.", "rejected")
        account.truncated += cut
        account.unfinished += not all(wholes)
        account.template_differs += not all(as_written)
        return prompt, tuple(answers)

    # --- score

    def score(self, policy: nn.Module, encoded: Encoded, want: Want = PLAIN) -> Scored:
        """log π of every response, [n, steps] in float32 with gradient, plus the wanted values (extras.py names them), or its
        reward, [n, 1]. The model computes inside the policy's own forward, so a wrapped policy is right. Raises Refusal."""
        check(want.values)
        if want.values & SECOND and not unwrap(policy).knows_reference:
            raise Refusal(
                f"the value {min(want.values & SECOND)!r} compares the policy with its reference, but this policy trains whole "
                "and holds no copy of it: call its hold() with the model it began as, or train an adapter."
            )
        if want.head != unwrap(policy).head:
            raise Refusal(f"this policy has no head {want.head!r}; valid is {unwrap(policy).head!r}.")
        if want.head == "reward" and want.values:
            raise Refusal(f"a reward model gives one number for each response, and no {', '.join(sorted(want.values))}.")
        if not (math.isfinite(want.temperature) and want.temperature > 0):
            raise Refusal(f"temperature={want.temperature}: scoring needs a finite temperature above 0.")
        flat = list(encoded.flat)
        if not flat:
            nothing = torch.zeros(0, 0)
            return Scored(nothing, nothing.bool(), values={value: nothing for value in want.values})
        if any(len(context) == 0 or len(response) == 0 for context, response in flat):
            raise Refusal("a response without tokens, or under a prompt without tokens, cannot be scored.")
        taught = _taught(encoded) if ADVANTAGE in want.values else None
        # What a frozen trunk makes of a row is kept by the row: it must not hang on what else is scored now.
        apart = unwrap(policy).trunk is not None
        rows = (encoded.contexts, encoded.responses)
        merged = unmerged(*rows) if apart else merge(*rows, alike=taught is None)
        advantages = None
        if taught is not None:  # each in the order of its response among the merged
            places = sorted(range(len(flat)), key=lambda i: merged.place[i])
            advantages = Sparse.joined([taught[i] for i in places]).to(unwrap(policy).device)
        values = policy(merged.contexts, merged.responses, want, advantages)
        if merged.place != list(range(len(values["logp"]))):
            place = torch.tensor(merged.place, device=values["logp"].device)
            values = {name: x[place] for name, x in values.items()}
        logp = values.pop("logp")
        return Scored(logp, masks(encoded.steps(want.head)).to(logp.device), values=values)

    def cost(self, policy: nn.Module, encoded: Encoded) -> Cost:
        """Tokens that are read to score each row: the prompt once for all of its responses, or once for each of them; the
        last token of a response is not read, but by a reward model. Rows of one prompt have it in common, and equal
        responses to it, but over a frozen trunk, whose rows are read apart."""
        path = unwrap(policy).scoring_path
        if unwrap(policy).reward is not None:
            encoded = replace(encoded, responses=tuple(map(tuple, read_to_the_end(encoded.responses))))
        if path.name == "padded":
            return Cost(encoded.sizes, padded=True)
        found = parts(encoded.contexts, encoded.responses, path.name == "tree", alike=encoded.advantages is None)
        apart = unwrap(policy).trunk is not None
        return Cost([sum(some.values()) for some in found], padded=False, parts=() if apart else found)

    # --- sample

    def sample(
        self,
        policy: nn.Module,
        contexts: Sequence[Prompt],
        *,
        count: int = 1,
        limit: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        scored: bool = True,
        batch: int = 8192,
        goal: float | int | None = None,
        sampler: Sampler = generate,
    ) -> Samples:
        """`count` answers of at most `limit` tokens to each prompt; temperature 0 is greedy. Sample k of prompt i hangs on
        (seed, i, k) and the prompt alone. `scored`: whether the log-probs are wanted. `batch`: tokens held at once. `goal`:
        the score asked for, of a model that was trained towards goals. `sampler`: who draws, if not the policy itself. Raises
        Refusal, naming the prompt from 1."""
        if count < 1 or limit < 1 or batch < 1:
            raise Refusal(f"count={count}, limit={limit}, batch={batch}: each must be at least 1.")
        if not (math.isfinite(temperature) and temperature >= 0 and 0 < top_p <= 1):
            raise Refusal(f"temperature={temperature} must be 0 or above and top_p={top_p} in (0, 1].")
        prompts = [self._prompt(i, self._under(prompt, goal), limit) for i, prompt in enumerate(contexts)]
        inner = unwrap(policy)
        trained = inner.training
        inner.eval()
        try:
            drawn = sampler(
                inner,
                prompts,
                stops=self.chat.stops,
                count=count,
                limit=limit,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                batch=batch,
                numbers=range(len(prompts)),
            )
            answers = [[answer.ids for answer in row] for row in drawn]
            unknown = torch.full((len(prompts) * count,), torch.nan)
            encoded = Encoded(
                data=Rollouts,
                contexts=tuple(prompts),
                responses=tuple(tuple(row) for row in answers),
                numbers=tuple(range(1, len(prompts) + 1)),
                columns={"reward": unknown, "advantage": unknown.clone()},
                accounting=Accounting(read=len(prompts), kept=len(prompts)),
            )
            logp = self._score_all(inner, encoded, batch) if scored else None
        finally:
            inner.train(trained)
        texts = tuple(tuple(row) for row in self.texts(encoded))
        stopped = tuple(tuple(int(answer[-1]) in self.chat.stops for answer in row) for row in answers)
        return Samples(encoded, texts, stopped, logp, _table([answer.logp for row in drawn for answer in row]))

    def _under(self, prompt: Prompt, goal: float | int | None) -> Prompt:
        """The prompt as it is put with a goal; a model that was not trained towards goals has none."""
        if goal is None:
            return prompt
        if self.goals is None:
            raise Refusal(
                f"goal={goal:g}: this model was not trained towards goals, so it has no words for one; leave it out."
            )
        return self.goals.ask(prompt, goal)

    def _prompt(self, i: int, prompt: Prompt, limit: int) -> Tensor:
        try:
            ids = self.chat.prompt(prompt)
        except (Unfit, Refusal) as error:
            raise Refusal(f"prompt {i + 1} ({brief(prompt)}): {error}") from error
        if self.positions is not None and len(ids) + limit > self.positions:
            raise Refusal(
                f"prompt {i + 1} ({brief(prompt)}) has {len(ids):,} tokens; with {limit:,} to come it passes the "
                f"{self.positions:,} positions of the model. Shorten it, or lower the limit."
            )
        return ids

    @torch.no_grad()
    def _score_all(self, policy: nn.Module, encoded: Encoded, budget: int) -> Scored:
        """What `score` says of many rows, a budget of tokens at a time."""
        mask = masks(encoded.lengths)
        logp = torch.zeros(mask.shape)
        for rows in self.cost(policy, encoded).micro_batches(budget):
            part = self.score(policy, encoded.select(rows)).logp.cpu()
            logp[encoded.places(rows), : part.shape[1]] = part
        return Scored(logp, mask)

    # --- the same ids otherwise

    def recombine(self, encoded: Encoded, i: Sequence[int], j: Sequence[int]) -> Encoded:
        """The prompt (and columns) of row i[k] with the first response of row j[k], cut where both together pass
        max_length; cut rows are counted."""
        base = encoded.select(i)
        taken = [encoded.responses[row][0] for row in j]
        fitted = [y[: self.max_length - len(x)] for x, y in zip(base.contexts, taken, strict=True)]
        cut = sum(len(y) < len(whole) for y, whole in zip(fitted, taken, strict=True))
        return replace(
            base,
            responses=tuple((y,) for y in fitted),
            columns={name: x for name, x in base.columns.items() if len(x) == len(base)},
            weights=None,
            advantages=None,
            accounting=Accounting(read=len(base), kept=len(base), truncated=cut),
        )

    def texts(self, encoded: Encoded) -> list[list[str]]:
        """Every response as text, row by row, without its stop token."""
        return [[self.chat.text(response) for response in row] for row in encoded.responses]


def _taught(encoded: Encoded) -> list[Sparse]:
    """A teacher's advantages of every response."""
    if encoded.advantages is None:
        raise Refusal("the value 'advantage' reads a teacher's, but these rows have none: give Encoded.advantages.")
    flat = [taught for row in encoded.advantages for taught in row]
    for number, steps, taught in zip(encoded.response_numbers, encoded.lengths, flat, strict=True):
        if len(taught.rest) != steps:
            raise Refusal(
                f"row {number}: the teacher's advantages are of {len(taught.rest)} steps, the response of {steps}."
            )
    return flat


def _table(rows: Sequence[Tensor]) -> Scored:
    """Log-probs of responses of unequal lengths."""
    mask = masks([len(row) for row in rows])
    out = torch.zeros(mask.shape)
    out[mask] = torch.cat([torch.zeros(0), *rows])
    return Scored(out, mask)


def _wholes(row: Row) -> list[bool]:
    """Whether each response ended by itself: so, unless the row says that it was cut."""
    names = STOPPED.get(row.kind, ())
    for name in names:
        if not isinstance(row.extra.get(name), bool | None):
            raise Refusal(
                f"row {row.number}, {name}: {brief(row.extra[name])}; it must be true (the response ended by itself) or "
                "false (it was cut at a length limit), or be left out."
            )
    return [row.extra.get(name) is not False for name in names] or [True] * len(row.responses)

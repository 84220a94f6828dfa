"""Log-probs and values in chunks against the plain ones: the same numbers and gradients, and nowhere a second copy of the
logits. The models are tiny; the real one has its turn in test_exact.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from penchant.domains.base import Sparse, Want
from penchant.domains.text import logits
from penchant.domains.text.logits import Head, Rows, chunked_values, plain_values, row_values
from penchant.domains.text.models import LoRA, load
from penchant.domains.text.policy import TextPolicy
from penchant.errors import Refusal
from penchant.feedback.records import Row

VALUES = ("entropy", "kl", "ref", "advantage", "entropy/3", "mass/3", "mass/5")
EVERY = Want(values=frozenset(VALUES))


def told(want: Want) -> str:
    """A want in words that are the same in every process."""
    return f"{'+'.join(sorted(want.values)) or 'logp'} at {want.temperature:g}"


WANTS = [Want(), *(Want(frozenset({value})) for value in VALUES), EVERY, Want(EVERY.values, temperature=0.7)]


def taught(steps: int, size: int, k: int = 4, seed: int = 0) -> Sparse:
    """A teacher's advantages, any numbers."""
    make = torch.Generator().manual_seed(seed)
    ids = torch.rand(steps, size, generator=make).topk(k).indices
    return Sparse(ids, torch.randn(steps, k, generator=make), torch.randn(steps, generator=make))


def definitions(z: Tensor, answer: Tensor, other: Tensor, teacher: Sparse) -> dict[str, Tensor]:
    """Every value of steps one after the other, from all of their logits and the definitions alone."""
    p, q = z.softmax(-1), other.softmax(-1)
    good = teacher.rest.to(z)[:, None].repeat(1, z.shape[-1])
    for row, ids, values in zip(good, teacher.ids, teacher.values.to(z), strict=True):
        row[ids] = values
    most = p.sort(descending=True).values
    return {
        "logp": p.gather(-1, answer[:, None])[:, 0].log(),
        "entropy": -(p * p.log()).sum(-1),
        "kl": (q * (q / p).log()).sum(-1),
        "ref": q.gather(-1, answer[:, None])[:, 0].log(),
        "advantage": (p * good).sum(-1),
        "entropy/3": -(most[:, :3] * most[:, :3].log()).sum(-1),
        "mass/3": most[:, :3].sum(-1),
        "mass/5": most[:, :5].sum(-1),
    }


def example(dtype: torch.dtype, rows: int = 5, steps: int = 9, size: int = 101) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, the reference's, answers, mask."""
    make = torch.Generator().manual_seed(0)
    z, ref = (3 * torch.randn(2, rows, steps, size, generator=make)).to(dtype)
    lengths = torch.randint(1, steps + 1, (rows,), generator=make)
    return z, ref, torch.randint(size, (rows, steps), generator=make), torch.arange(steps)[None] < lengths[:, None]


def slope(out: dict[str, Tensor], z: Tensor) -> Tensor:
    """The gradient of an uneven sum of everything that was computed."""
    make = torch.Generator().manual_seed(1)
    weigh = lambda x: torch.randn(x.shape, generator=make).to(x)  # noqa: E731
    return torch.autograd.grad(sum((x * weigh(x)).sum() for _, x in sorted(out.items())), z)[0]  # pyright: ignore


@pytest.mark.parametrize("want", WANTS, ids=told)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 4 * 101, 10**6])
def test_chunks_say_what_the_plain_way_says(want: Want, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logits, "CHUNK", chunk)
    z, ref, answer, mask = example(dtype)
    z.requires_grad_()
    teacher = taught(int(mask.sum()), 101)
    plain, chunked = (f(z, answer, mask, want, ref, teacher) for f in (plain_values, chunked_values))
    assert plain.keys() == chunked.keys() == {"logp", *want.values}
    near = 1e-12 if dtype is torch.float64 else 1e-6
    for name, x in plain.items():
        assert chunked[name].dtype == x.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(chunked[name], x, rtol=near, atol=near)
        assert not chunked[name][~mask].any()
    a, b = slope(plain, z), slope(chunked, z)
    assert b.dtype == dtype
    # bf16 gradients are rounded once from float32: they differ by a unit in the last place at most
    torch.testing.assert_close(b, a, rtol=2**-7 if dtype is torch.bfloat16 else near, atol=near)
    assert not b[~mask].any()


@pytest.mark.parametrize("value", ["logp", *VALUES])
def test_each_value_and_its_gradient_are_what_the_definitions_say(value: str):
    z, ref, answer, mask = example(torch.float64)
    z.requires_grad_()
    teacher = taught(int(mask.sum()), 101)
    expected = definitions(z[mask], answer[mask], ref[mask], teacher)[value]
    made = chunked_values(z, answer, mask, Want(frozenset({value} - {"logp"})), ref, teacher)[value]
    torch.testing.assert_close(made[mask], expected, rtol=1e-10, atol=1e-12)
    if value == "ref":
        assert not made.requires_grad, "the reference does not train"
        return
    ours, theirs = (torch.autograd.grad(x.square().sum(), z, retain_graph=True)[0] for x in (made[mask], expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("value", ["logp", *VALUES])
def test_through_scale_cap_bias_and_tied_weights_each_gradient_is_that_of_plain_logits(
    value: str, tied: bool, temperature: float, monkeypatch: pytest.MonkeyPatch
):
    """The second model has a head of its own kind: another width, another scale and no cap."""
    monkeypatch.setattr(logits, "PRODUCT", 3 * 31)
    make = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=make, dtype=torch.float64)  # noqa: E731
    weight, bias, body, other = draw(31, 8), draw(31), draw(8, 8), Head(draw(31, 5), scale=0.4)
    mixed, tokens, answer = draw(10, 10), torch.arange(10), torch.randint(31, (10,), generator=make)
    far, teacher = draw(10, 5), taught(10, 31)
    parameters = [x.requires_grad_() for x in (weight, bias, body)]
    states = mixed @ ((weight[tokens] if tied else weight[tokens].detach()) @ body)
    every = torch.arange(10)
    want = Want(frozenset({value} - {"logp"}), temperature)
    made = row_values(
        Rows(states, every, Head(weight, bias, scale=1.7, cap=2.0)), answer, want, Rows(far, every, other), teacher
    )[value]
    z = 2 * torch.tanh(1.7 * (states @ weight.T + bias) / 2) / temperature
    expected = definitions(z, answer, 0.4 * far @ other.weight.T / temperature, teacher)[value]
    torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-12)
    if value != "ref":
        slopes = draw(10)
        ours, theirs = (torch.autograd.grad((x * slopes).sum(), parameters, retain_graph=True) for x in (made, expected))
        for a, b in zip(ours, theirs, strict=True):
            assert b.abs().max() > 1e-3
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_under_a_frozen_head_the_same_gradient_comes_without_a_second_product_of_logits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logits, "PRODUCT", 3 * 31)
    make = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)  # noqa: E731
    weight, bias, states = draw(31, 8), draw(31), draw(12, 8)
    every, answer, slopes = torch.arange(10).flip(0), torch.randint(31, (10,), generator=make), draw(10).double()
    made: list[int] = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *given: made.append(1) or linear(*given))
    found = []
    for frozen in (True, False):
        parts = [x.clone().requires_grad_(x is states or not frozen) for x in (weight, bias, states)]
        head = Head(parts[0], parts[1], scale=1.7, cap=2.0)
        logp = row_values(Rows(parts[2], every, head), answer, Want(temperature=0.7))["logp"]
        (logp * slopes).sum().backward()
        found.append((logp, parts[2].grad, len(made)))
        made.clear()
    (ours, grad, products), (theirs, expected, twice) = found
    assert torch.equal(ours, theirs) and (products, twice) == (4, 8)
    rtol, atol = (1e-9, 1e-12) if dtype == torch.float64 else (0.05, 0.02)
    torch.testing.assert_close(grad, expected, rtol=rtol, atol=atol)


def test_what_a_sparse_teacher_and_the_most_probable_say_by_hand():
    """A(a) = log π_dpo(a) − log π_tref(a), and E_π A = KL(π ‖ π_tref) − KL(π ‖ π_dpo); the three of six most probable."""
    dpo, tref = (torch.tensor(p).double() for p in ([(0.6, 0.3, 0.1), (0.2, 0.7, 0.1)], [(0.4, 0.4, 0.2), (0.3, 0.3, 0.4)]))
    z = torch.tensor([[[0.2, 0.1, -0.3], [0.0, 0.5, -0.5]]]).double().requires_grad_()
    ids, none = torch.arange(3).repeat(2, 1), torch.zeros(2).double()
    one = torch.ones(1, 2).bool()
    said = lambda a: chunked_values(z, ids[:1, :2], one, Want(frozenset({"advantage"})), None, a)["advantage"]  # noqa: E731
    whole = said(Sparse(ids, (dpo / tref).log(), none))
    assert (-whole[0]).tolist() == pytest.approx([0.109604, -0.046283], abs=1e-6)
    slope = torch.autograd.grad(-whole.mean(), z)[0]
    assert slope.flatten().tolist() == pytest.approx(
        [-0.102547, 0.032081, 0.070467, 0.069388, -0.202849, 0.133462], abs=1e-6
    )
    p = z.softmax(-1)[0]
    torch.testing.assert_close(-whole[0], (p * (p / dpo).log()).sum(-1) - (p * (p / tref).log()).sum(-1))
    some = Sparse(ids[:, :1], (dpo / tref).log()[:, :1], none)
    torch.testing.assert_close(said(some)[0], p[:, 0] * (dpo / tref).log()[:, 0])
    six = torch.tensor([[[3.0, 2, 1, 0, -1, -2]]]).double()
    most = lambda z: plain_values(z, ids[:1, :1], one[:, :1], Want(frozenset({"mass/3", "entropy/3"})))  # noqa: E731
    for times, mass, entropy in ((1, 0.952574, 0.839202), (2, 0.997527, 0.442436), (0.25, 0.679179, 0.994976)):
        found = most(times * six)
        assert (float(found["mass/3"]), float(found["entropy/3"])) == pytest.approx((mass, entropy), abs=1e-6)
    assert float(most(0 * six)["mass/3"]) == pytest.approx(0.5)


def test_teachers_that_name_different_numbers_of_answers_are_joined_without_a_difference():
    few, many = taught(4, 31, k=2, seed=1), taught(5, 31, k=6, seed=2)
    z, answer, want = torch.randn(9, 31), torch.zeros(9).long(), Want(frozenset({"advantage"}))
    alone = [
        row_values(Rows(z[at], torch.arange(len(z[at]))), answer[at], want, None, some)["advantage"]
        for at, some in ((slice(4), few), (slice(4, 9), many))
    ]
    both = row_values(Rows(z, torch.arange(9)), answer, want, None, Sparse.joined([few, many]))["advantage"]
    torch.testing.assert_close(both, torch.cat(alone))


class Watch(TorchDispatchMode):
    """The bytes of the largest tensor made, and the numbers of the largest in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.floats = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_iter(out):
            if isinstance(x, Tensor):
                self.bytes = max(self.bytes, x.numel() * x.element_size())
                self.floats = max(self.floats, x.numel() if x.dtype == torch.float32 else 0)
        return out


@pytest.mark.parametrize("want", [Want(), EVERY], ids=told)
def test_no_float32_copy_of_the_logits_exists_forward_or_backward(want: Want, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logits, "CHUNK", 4 * 101)
    seen = []
    for steps in (9, 90):
        z, ref, answer, mask = example(torch.bfloat16, steps=steps)
        z.requires_grad_()
        teacher = taught(int(mask.sum()), 101)
        with Watch() as watch:
            slope(chunked_values(z, answer, mask, want, ref, teacher), z)
        assert watch.bytes == z.numel() * 2, "nothing is larger than the bf16 gradient itself"
        seen.append(watch.floats)
        with Watch() as watch:
            slope(plain_values(z, answer, mask, want, ref, teacher), z)
        assert watch.floats == z.numel(), "the plain way does copy them, and is seen doing so"
    assert seen == [4 * 101, max(4 * 101, 5 * 90)], "a chunk, or one number per step, however many steps there are"


# "kl" through a model -----------------------------------------------------------------------------


def policies(folder: Path, tmp_path: Path) -> dict[str, TextPolicy]:
    """One policy for each kind of reference, moved away from it."""
    made = {"copy held": load(folder).policy, "adapter off": load(folder, lora=LoRA(4)).policy}
    made["copy held"].hold(load(folder).policy)
    moved(made["adapter off"])
    made["adapter off"].save(tmp_path / "adapter")
    made["adapter copied"] = load(tmp_path / "adapter").policy
    moved(made["copy held"])
    moved(made["adapter copied"])
    return made


def moved(policy: TextPolicy) -> None:
    make = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, p in policy.named_trainable():
            p.add_(0.02 * torch.randn(p.shape, generator=make))


ROWS = [Row(1, "pairs", "is it good", ("yes", "no thank you, it is a bad day")), Row(2, "pairs", "a", ("what", "the cat"))]


@pytest.mark.parametrize("kind", ["copy held", "adapter off", "adapter copied"])
def test_kl_is_that_of_the_whole_distributions_with_gradient_through_the_policy_alone(
    kind: str, tiny_folder: Path, tmp_path: Path
):
    torch.manual_seed(0)
    policy, domain = policies(tiny_folder, tmp_path)[kind], load(tiny_folder).domain
    rows = domain.encode(ROWS)
    trains = {name: p.requires_grad for name, p in policy.named_parameters()}
    scored = domain.score(policy, rows, Want(values=frozenset({"kl"})))
    assert {name: p.requires_grad for name, p in policy.named_parameters()} == trains
    parameters = [p for _, p in policy.named_trainable()]
    expected = []
    for context, answer in rows.flat:
        ids, span = torch.cat([context, answer])[None], slice(len(context) - 1, -1)
        p = policy.model(input_ids=ids).logits[0, span].double().softmax(-1)
        with torch.no_grad():
            if kind == "copy held":
                q = load(tiny_folder).policy.model(input_ids=ids).logits[0, span].double().softmax(-1)
            else:
                with policy.as_reference():
                    q = policy.model(input_ids=ids).logits[0, span].double().softmax(-1)
        expected.append((q * (q / p).log()).sum())
    kl = torch.where(scored.mask, scored.value("kl"), 0.0).sum(-1)
    assert kl.min() > 1e-4
    torch.testing.assert_close(kl.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    ours = torch.autograd.grad((kl * weights).sum(), parameters, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(
        (torch.stack(expected) * weights).sum(), parameters, allow_unused=True, materialize_grads=True
    )
    assert max(float(g.abs().max()) for g in ours) > 1e-3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_held_copy_is_no_part_of_the_policy(tiny_folder: Path, tmp_path: Path):
    policy, plain = load(tiny_folder).policy, load(tiny_folder).policy
    policy.hold(load(tiny_folder).policy)
    assert [n for n, _ in policy.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert policy.state_dict().keys() == plain.state_dict().keys() and policy.state().keys() == plain.state().keys()
    policy.save(tmp_path / "whole")
    plain.save(tmp_path / "plain")
    assert {p.name for p in (tmp_path / "whole").iterdir()} == {p.name for p in (tmp_path / "plain").iterdir()}


def test_kl_without_a_reference_is_refused(tiny_folder: Path):
    loaded = load(tiny_folder)
    with pytest.raises(Refusal, match=r"'kl' compares the policy with its reference.*holds no copy"):
        loaded.domain.score(loaded.policy, loaded.domain.encode(ROWS), Want(values=frozenset({"kl"})))


@pytest.mark.parametrize("kind", ["copy held", "adapter off", "adapter copied"])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_wrapped_policy_gives_the_same_kl_and_gradients(kind: str, bf16: bool, tiny_folder: Path, tmp_path: Path):
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    policy, domain = policies(tiny_folder, tmp_path)[kind], load(tiny_folder).domain
    rows, want = domain.encode(ROWS), Want(values=frozenset({"kl"}))

    def loss(of: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            scored = domain.score(of, rows, want)
        return scored.total.sum() + 3 * torch.where(scored.mask, scored.value("kl"), 0.0).sum()

    parameters = dict(policy.named_trainable())
    expected = torch.autograd.grad(loss(policy), list(parameters.values()))
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(policy)
        for _ in range(2):  # the second step would stumble over what the first left behind
            policy.zero_grad()
            loss(wrapped).backward()
    finally:
        dist.destroy_process_group()
    for p, g in zip(parameters.values(), expected, strict=True):
        assert p.grad is not None and p.grad.abs().max() > 0
        torch.testing.assert_close(p.grad, g)

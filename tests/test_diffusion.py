"""Pictures as something to align: noise that a row's pictures and the reference share, errors as the schedulers of `diffusers` have
them, and real pipelines, built tiny, saved and loaded again."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")

import pipelines
from penchant.domains.base import Encoded, Want
from penchant.domains.diffusion.domain import KAPPA, Pictures, kappa_of, said_of
from penchant.domains.diffusion.loading import Adapter, load, of_classes_model, of_pipeline
from penchant.domains.diffusion.networks import Classes
from penchant.domains.diffusion.noise import (
    Flow,
    LogitNormal,
    MinSNR,
    VariancePreserving,
    drawn,
    generator_of,
    weighting_of,
)
from penchant.domains.diffusion.policy import DiffusionPolicy, reference_of
from penchant.domains.diffusion.reading import image_of, pixels_of
from penchant.domains.diffusion.sampling import Sampler
from penchant.engine.precision import Precision
from penchant.engine.step import Material, Step
from penchant.errors import Refusal
from penchant.feedback.pictures import open_pictures
from penchant.objectives import DPO, IPO, Consensus, DiffusionKTO, Labelled, MaPO, Objective, Pairs
from penchant.objectives.base import zeros

Image = pytest.importorskip("PIL.Image")
WANTED = Want(frozenset({"ref", "error"}), seed=11)


def small(adapter: Adapter | None = None, flowing: bool = True) -> DiffusionPolicy:
    network, scheduler = pipelines.of_classes(flowing=flowing)
    return of_classes_model(network, scheduler, ["boot", "coat", "bag"], adapter)


def pictures(n: int, shape: tuple[int, ...], kind: type = Pairs, seed: int = 0, width: int = 1) -> Encoded:
    """Rows of random pictures. width: of a context."""
    make = torch.Generator().manual_seed(seed)
    each = 2 if kind is Pairs else 1
    columns = {"annotator": torch.arange(n) % 3}
    if kind is Labelled:
        columns["label"] = torch.tensor([i % 3 != 0 for i in range(n)])
    return Encoded(
        kind,
        tuple(torch.randint(0, 3, (width,), generator=make) for _ in range(n)),
        tuple(tuple(torch.randn(1, *shape, generator=make) for _ in range(each)) for _ in range(n)),
        tuple(range(1, n + 1)),
        columns,
        ("ada", "ben", "cho"),
    )


# Noise --------------------------------------------------------------------------------------------


def test_a_draw_hangs_on_seed_row_and_its_place_alone():
    u, noise = drawn(LogitNormal(), (1, 4, 4), 7, [5, 9, 5], 3)
    again, same = drawn(LogitNormal(), (1, 4, 4), 7, [9], 2)
    assert torch.equal(u[0], u[2]) and torch.equal(noise[0], noise[2])
    assert torch.equal(again[0], u[1, :2]) and torch.equal(same[0], noise[1, :2])
    other, _ = drawn(LogitNormal(), (1, 4, 4), 8, [5], 1)
    assert other[0, 0] != u[0, 0] and len(set(u[:2].flatten().tolist())) == 6
    with pytest.raises(Refusal, match="draws=0"):
        drawn(LogitNormal(), (1,), 0, [1], 0)


def test_levels_are_drawn_as_their_density_says():
    z = torch.stack([LogitNormal(0.5, 2.0)(generator_of("density", i)) for i in range(4000)]).logit()
    assert float(z.mean()) == pytest.approx(0.5, abs=4 * 2 / math.sqrt(4000))
    assert float(z.std()) == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_levels_and_targets_are_those_of_the_schedulers_of_diffusers(predicts: Any):
    scheduler = pipelines.D.DDPMScheduler(prediction_type=predicts, beta_schedule="squaredcos_cap_v2")
    process = VariancePreserving(scheduler.alphas_cumprod.double(), predicts)
    make = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(5, 2, 3, 3, generator=make, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0, 1, 333, 700, 980])
    level = process.at(t)
    torch.testing.assert_close(level.noised(x0, eps), scheduler.add_noise(x0, eps, t), rtol=1e-6, atol=1e-6)
    theirs = {"epsilon": eps, "v_prediction": scheduler.get_velocity(x0, eps, t), "sample": x0}[predicts]
    target = process.target(x0, eps, level)
    torch.testing.assert_close(target, theirs, rtol=1e-6, atol=1e-6)
    found, noise = process.clean(level.noised(x0, eps), target, level)
    torch.testing.assert_close(found, x0, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(noise, eps, rtol=1e-6, atol=1e-5)
    assert process.level(torch.tensor([0.0, 0.5, 0.9999999, 1.0])).time.tolist() == [0.0, 500.0, 999.0, 999.0]


def test_rectified_flow_is_that_of_its_scheduler():
    scheduler = pipelines.D.FlowMatchEulerDiscreteScheduler(shift=3.0)
    process = Flow(shift=3.0)
    make = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4, 1, 2, 2, generator=make) for _ in range(2))
    at = torch.tensor([0, 300, 700, 999])
    t, s = scheduler.timesteps[at], scheduler.sigmas[at]
    level = process.at(s)
    torch.testing.assert_close(level.time, t.double(), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(level.noised(x0, eps), scheduler.scale_noise(x0, t, eps))
    torch.testing.assert_close(process.target(x0, eps, level), eps - x0)
    # 3u / (1 + 2u) at u = 1/4, 1/2: 1/2 and 3/4
    torch.testing.assert_close(process.level(torch.tensor([0.25, 0.5]).double()).s, torch.tensor([0.5, 0.75]).double())
    for found, wanted in zip(process.clean(level.noised(x0, eps), eps - x0, level), (x0, eps), strict=True):
        torch.testing.assert_close(found, wanted)


def test_an_error_weighs_the_same_whatever_is_predicted():
    """ᾱ = 0.36: an ε-error of .0175 is a v-error of .0175 / .36 and an x0-error of .0175 · .64 / .36."""
    error = {"epsilon": 0.0175, "v_prediction": 0.0486111111, "sample": 0.0311111111}
    for predicts, value in error.items():
        process = VariancePreserving(torch.tensor([0.36]), predicts)  # pyright: ignore[reportArgumentType]
        level = process.at(torch.tensor([0]))
        assert float(weighting_of("eps-equivalent")(process, level)) * value == pytest.approx(0.0175, rel=1e-6)
        # min(SNR, γ) on the error of x0, SNR = .5625
        assert float(MinSNR(0.25)(process, level)) * value == pytest.approx(0.25 * 0.0311111111, rel=1e-6)
        assert float(weighting_of("min-snr-5")(process, level)) * value == pytest.approx(0.5625 * 0.0311111111, rel=1e-6)
    flow, at = Flow(), torch.tensor([0.8])
    assert float(weighting_of("eps-equivalent")(flow, flow.at(at))) == pytest.approx(0.04)
    with pytest.raises(Refusal, match="min-snr-5"):
        weighting_of("snr")


def test_a_papers_beta_is_told_and_read():
    assert kappa_of(2000.0, 0.1) == KAPPA["sd"] and kappa_of(5000.0, 0.1) == KAPPA["sdxl"]
    assert kappa_of(1000.0, 0.1, "response") == 10_000
    assert "2,000 in the code of Diffusion-DPO" in said_of(KAPPA["sd"], 0.1) and "1,000 in that" in said_of(10_000.0, 0.1)
    with pytest.raises(Refusal, match="paper_beta=0"):
        kappa_of(0.0, 0.1)


# Scoring ------------------------------------------------------------------------------------------


def by_hand(policy: DiffusionPolicy, encoded: Encoded, seed: int, draws: int = 1) -> Tensor:
    """The mean squared error of every picture, one at a time, noised by the scheduler of `diffusers` itself."""
    out = []
    for i, (number, ys) in enumerate(zip(encoded.numbers, encoded.responses, strict=True)):
        for y in ys:
            total = 0.0
            for k in range(draws):
                make = generator_of(seed, number, k)
                s = torch.randn((), generator=make, dtype=torch.float64).sigmoid()
                eps = torch.randn(policy.shape, generator=make)[None]
                x = (1 - s).float() * y + s.float() * eps
                with torch.no_grad():
                    given = policy.plain_model(x, (s * 1000).float()[None], class_labels=encoded.contexts[i]).sample
                total += float(((given - (eps - y)) ** 2).mean()) / draws
            out.append(total)
    return torch.tensor(out)


def test_log_prob_is_minus_kappa_times_the_mean_squared_error():
    policy, encoded = small(), pictures(3, (1, 8, 8))
    domain = Pictures(policy, kappa=40.0)
    for draws in (1, 3):
        y = domain.score(policy, encoded, Want(frozenset({"error"}), seed=11, draws=draws))
        torch.testing.assert_close(y.value("error")[:, 0], by_hand(policy, encoded, 11, draws), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(y.logp, -40 * y.value("error"))
        assert y.logp.shape == (6, 1) and y.mask.all() and y.logp.requires_grad
    alone = domain.score(policy, encoded.select([2, 0]), Want(seed=11))
    torch.testing.assert_close(alone.logp[:2], domain.score(policy, encoded, Want(seed=11)).logp[4:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("adapter", [None, Adapter(4, 8)])
def test_the_reference_meets_the_same_noise_and_is_the_start(adapter: Adapter | None):
    policy, encoded = small(adapter), pictures(4, (1, 8, 8))
    domain = Pictures(policy)
    if adapter is None:
        with pytest.raises(Refusal, match="holds no copy"):
            domain.score(policy, encoded, WANTED)
        policy.hold(policy.twin())
    assert (reference_of(policy) is None) == (adapter is None)
    with torch.no_grad():
        start = domain.score(policy, encoded, WANTED)
    assert torch.equal(start.logp, start.value("ref")), "policy and reference agree to the last bit before the first step"
    trained = list(policy.named_trainable())
    with torch.no_grad():
        for _, p in trained:
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    moved = domain.score(policy, encoded, WANTED)
    assert torch.equal(moved.value("ref"), start.logp) and not torch.equal(moved.logp, start.logp)
    moved.logp.sum().backward()
    assert all(p.grad is not None for _, p in trained)
    if adapter is not None:
        assert all("lora" in name for name, _ in trained)


def test_a_picture_held_against_itself_has_no_margin():
    policy, encoded = small(), pictures(3, (1, 8, 8))
    twice = Encoded(Pairs, encoded.contexts, tuple((a, a) for a, _ in encoded.responses), encoded.numbers)
    y = Pictures(policy).score(policy, twice, Want(seed=5))
    assert torch.equal(y.logp[::2], y.logp[1::2])


def test_what_cannot_be_scored_is_refused():
    policy, encoded = small(), pictures(2, (1, 8, 8))
    domain = Pictures(policy)
    for want, said in (
        (Want(frozenset({"kl"})), "'kl' is not known of pictures"),
        (Want(head="reward"), "no head 'reward'"),
        (Want(temperature=0.5), "temperature=0.5"),
    ):
        with pytest.raises(Refusal, match=said):
            domain.score(policy, encoded, want)
    with pytest.raises(Refusal, match=r"row 1: a picture \[1, 1, 4, 4\]"):
        domain.score(policy, pictures(1, (1, 4, 4)))
    with pytest.raises(Refusal, match="DiffusionPolicy"):
        domain.score(torch.nn.Linear(1, 1), encoded)
    with pytest.raises(Refusal, match="kappa=0"):
        Pictures(policy, kappa=0.0)


FP32 = Precision("fp32", "highest", {})


@pytest.mark.parametrize("objective", [DPO(beta=0.1), Consensus(IPO()), MaPO(), DiffusionKTO()], ids=repr)
def test_objectives_train_pictures_and_a_step_is_the_same_however_it_is_cut(objective: Objective):
    encoded = pictures(6, (1, 8, 8), Labelled if isinstance(objective, DiffusionKTO) else Pairs)
    found = []
    for tokens in (64 * 12, 64 * 2):
        policy = small()
        policy.hold(policy.twin())
        domain = Pictures(policy, kappa=50.0)
        optimiser = torch.optim.SGD([p for _, p in policy.named_trainable()], lr=1e-4)
        step = Step(policy, domain, objective, optimiser, Accelerator(cpu=True), FP32, tokens=tokens, clip=1e9)
        before = {name: x.clone() for name, x in policy.state().items()}
        first = step(Material(encoded, {}), range(6), zeros(objective, {"annotator": 3}), 3)
        found.append(torch.cat([(x - before[name]).flatten() for name, x in policy.state().items()]))
        again = step(Material(encoded, {}), range(6), first.state, 3)  # in the same noise
        assert again.loss < first.loss
    assert float(found[0].abs().max()) > 1e-6
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


# Sampling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_a_sample_is_what_the_pipeline_of_diffusers_draws(kind: str):
    torch.manual_seed(0)
    pipeline = pipelines.PIPELINES[kind]()
    pipeline.set_progress_bar_config(disable=True)
    policy, _ = of_pipeline(pipeline)
    domain, how = Pictures(policy), Sampler(4, 3.0)
    ids, _ = policy.conditioner.encode(SAID)
    drawn_here = domain.sample(policy, [ids], count=2, seed=3, scored=False, sampler=how)
    mine = torch.cat(drawn_here.encoded.responses[0])
    start = torch.stack([torch.randn(4, 8, 8, generator=generator_of("sample", 3, 0, k)) for k in range(2)])
    latents = pipeline._pack_latents(start, 2, 4, 8, 8) if kind == "flux" else start
    theirs = pipeline(
        SAID, height=16, width=16, num_images_per_prompt=2, num_inference_steps=4, output_type="latent",
        guidance_scale=3.5 if kind == "flux" else 3.0, latents=latents,
    ).images  # fmt: skip
    theirs = pipeline._unpack_latents(theirs, 16, 16, 2) if kind == "flux" else theirs
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.equal(mine[0], mine[1])


@pytest.mark.parametrize("flowing", [True, False])
def test_samples_hang_on_seed_and_place_and_are_scored(flowing: bool):
    policy = small(flowing=flowing)
    domain = Pictures(policy, sampler=Sampler(3))
    contexts = [torch.tensor([0]), torch.tensor([2])]
    made = domain.sample(policy, contexts, count=2, seed=5)
    again = domain.sample(policy, contexts[:1], count=1, seed=5)
    torch.testing.assert_close(again.encoded.responses[0][0], made.encoded.responses[0][0])
    assert made.logp is not None and made.logp.logp.shape == (4, 1) and again.logp is not None
    torch.testing.assert_close(again.logp.logp[0], made.logp.logp[0], rtol=1e-4, atol=1e-3)
    assert len({text for row in made.texts for text in row}) == 4 and made.stopped == ((True, True),) * 2
    with pytest.raises(Refusal, match="knows no empty prompt"):
        domain.sample(policy, contexts, sampler=Sampler(3, 2.0))
    with pytest.raises(Refusal, match=r"temperature=0\.5"):
        domain.sample(policy, contexts, temperature=0.5)
    with pytest.raises(Refusal, match="guidance=0"):
        Sampler(3, 0.0)


def test_a_scheduler_that_draws_noise_is_sampled_by_ddim_or_refused():
    network, _ = pipelines.of_classes()
    config = pipelines.schedule().config
    context = [torch.tensor([1])]
    by = lambda name: of_classes_model(network, getattr(pipelines.D, name).from_config(config), ["a", "b", "c"])  # noqa: E731
    draws = [
        Pictures(policy, sampler=Sampler(3)).sample(policy, context)
        for policy in map(by, ("DDPMScheduler", "DDIMScheduler"))
    ]
    assert torch.equal(*(made.encoded.responses[0][0] for made in draws))
    noisy = pipelines.D.DPMSolverMultistepScheduler.from_config(config, algorithm_type="sde-dpmsolver++")
    ancestral = of_classes_model(network, noisy, ["a", "b", "c"])
    with pytest.raises(Refusal, match="draws noise of its own"):
        Pictures(ancestral).sample(ancestral, context)


# Rows ---------------------------------------------------------------------------------------------


def drawn_file(path: Path, colour: Any, mode: str = "L", size: tuple[int, int] = (16, 8)) -> None:
    Image.new(mode, size, colour).save(path)


def test_rows_of_pictures_are_encoded_and_what_is_wrong_is_told_by_row(tmp_path: Path):
    for name, colour in (("a.png", 0), ("b.png", 255), ("c.png", 127)):
        drawn_file(tmp_path / name, colour)
    drawn_file(tmp_path / "wide.png", 127, size=(80, 8))
    rows = [
        {"prompt": "boot", "chosen": "a.png", "rejected": "b.png", "annotator": "ada"},
        {"prompt": "1", "chosen": "c.png", "rejected": "wide.png"},
        {"prompt": "bag", "chosen": "b.png", "rejected": "c.png"},
    ]
    policy = small()
    source, gallery = open_pictures(rows, root=tmp_path)
    domain = Pictures(policy, opened=gallery.open)
    encoded = domain.encode(source)
    assert encoded.data is Pairs and encoded.numbers == (1, 3) and [int(x) for x in encoded.contexts] == [0, 2]
    assert encoded.accounting.dropped == {"identical": 1} and encoded.annotators == ("ada",)
    (black, white), (_, grey) = encoded.responses
    assert black.shape == (1, 1, 8, 8) and bool((black == -1).all()) and bool((white == 1).all())
    torch.testing.assert_close(grey, torch.full_like(grey, 127 / 127.5 - 1))
    torch.testing.assert_close(domain.pixels(torch.cat([black, white])), torch.cat([black, white]))

    wrong, gallery = open_pictures([{**rows[0], "prompt": "hat"}], root=tmp_path)
    with pytest.raises(Refusal, match="row 1, prompt: the prompt 'hat' names no class"):
        Pictures(policy, opened=gallery.open).encode(wrong)
    given, gallery = open_pictures(rows[:1], root=tmp_path)
    with pytest.raises(Refusal, match=r"row 1, chosen: pictures were not given .* open_pictures"):
        Pictures(policy).encode(given)
    changed, gallery = open_pictures(rows[:1], root=tmp_path)
    drawn_file(tmp_path / "b.png", 200)
    with pytest.raises(Refusal, match=r"row 1 .*is not what it was"):
        Pictures(policy, opened=gallery.open).encode(changed)


def test_a_picture_fills_its_size_and_what_is_transparent_is_white():
    half = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    half.paste((0, 0, 0, 0), (0, 0, 4, 4))
    x = pixels_of(half, 3, 4, 8)
    assert x.shape == (3, 4, 8) and x[:, 0, 0].tolist() == [1, 1, 1] and x[:, 0, 7].tolist() == [1, -1, -1]
    tall = Image.new("L", (4, 40), 0)
    tall.paste(255, (0, 18, 4, 22))  # the middle square
    assert bool((pixels_of(tall, 1, 4, 4) > 0.5).all())
    assert pixels_of(image_of(x), 3, 4, 8).equal(x)


def test_classes_are_names_or_numbers():
    classes = Classes(["boot", "coat"])
    assert classes.encode("coat")[0].tolist() == classes.encode("1")[0].tolist() == [1]
    for wrong in ("2", "coats", "", "-1", "²"):
        with pytest.raises(Refusal, match="names no class"):
            classes.encode(wrong)
    with pytest.raises(Refusal, match="none twice"):
        Classes(["a", "a"])


# Real pipelines, tiny -----------------------------------------------------------------------------

SAID = "a red boot, size 9."


def conditions(pipeline: Any, kind: str) -> tuple[Tensor, Tensor | None]:
    """What the pipeline of `diffusers` makes of a prompt: the states and the pooled vector."""
    how = {"prompt": SAID, "device": "cpu", "num_images_per_prompt": 1}
    if kind == "sd":
        return pipeline.encode_prompt(**how, do_classifier_free_guidance=False)[0], None
    if kind == "sdxl":
        states, _, pooled, _ = pipeline.encode_prompt(**how, do_classifier_free_guidance=False)
    elif kind == "sd3":
        states, _, pooled, _ = pipeline.encode_prompt(
            **how, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False
        )
    else:
        states, pooled, _ = pipeline.encode_prompt(**how, prompt_2=None)
    return states, pooled


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_a_pipeline_is_saved_loaded_and_reads_prompts_as_diffusers_does(kind: str, tmp_path: Path):
    torch.manual_seed(0)
    built = pipelines.PIPELINES[kind]()
    built.save_pretrained(tmp_path / "start", safe_serialization=True)
    policy, found = load(str(tmp_path / "start"), size=16)
    assert found == kind and policy.shape == (4, 8, 8)
    ids, cut = policy.conditioner.encode(SAID)
    assert cut == (kind in ("sd", "sdxl"))  # 16 tokens are fewer than its letters; a T5 reads on
    told = policy.condition(ids[None])
    states, pooled = conditions(policy.pipeline, kind)
    assert told.states is not None
    torch.testing.assert_close(told.states, states)
    if pooled is not None:
        assert told.pooled is not None
        torch.testing.assert_close(told.pooled, pooled)

    domain = Pictures(policy, kappa=KAPPA[kind])
    assert domain.size == (3, 16, 16)
    pixels = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(4)]
    latents = domain.latents(pixels)
    assert latents[0].shape == (1, 4, 8, 8) and domain.pixels(torch.cat(latents)).shape == (4, 3, 16, 16)
    encoded = Encoded(Pairs, (ids, ids), (latents[:2], latents[2:]), (1, 2))
    policy.hold(policy.twin())
    y = domain.score(policy, encoded, WANTED)
    assert torch.equal(y.logp.detach(), y.value("ref")) and y.logp.isfinite().all()
    y.logp.sum().backward()
    names = dict(policy.named_trainable())
    assert names and not [n for n in names if not n.startswith("model.")], "text encoders and autoencoder do not train"
    assert sum(p.grad is not None and bool(p.grad.any()) for p in names.values()) > len(names) / 2

    policy.save(tmp_path / "end")
    assert not [*(tmp_path / "end").rglob("*.bin"), *(tmp_path / "end").rglob("*.pt")]
    again, _ = load(str(tmp_path / "end"), size=16)
    with torch.no_grad():
        same = Pictures(again, kappa=KAPPA[kind]).score(again, encoded, Want(seed=11)).logp
    assert torch.equal(same, y.logp.detach())


def test_flux_is_asked_in_the_pieces_of_its_pipeline():
    torch.manual_seed(0)
    pipeline = pipelines.flux()
    policy, _ = of_pipeline(pipeline)
    x, time = torch.randn(2, 4, 8, 8), torch.tensor([900.0, 100.0])
    told = policy.condition(torch.stack([policy.conditioner.encode(said)[0] for said in ("boot", "coat")]))
    level = Flow().at(time.double() / 1000)
    with torch.no_grad():
        mine = policy.predict(x, level, told)
        theirs = pipeline.transformer(
            hidden_states=pipeline._pack_latents(x, 2, 4, 8, 8),
            timestep=time / 1000,
            guidance=torch.tensor([3.5, 3.5]),
            pooled_projections=told.pooled,
            encoder_hidden_states=told.states,
            txt_ids=torch.zeros(512, 3),
            img_ids=pipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
        ).sample
    torch.testing.assert_close(mine, pipeline._unpack_latents(theirs, 16, 16, 2))
    assert "guidance=None" in repr(of_pipeline(pipelines.flux(guided=False))[0].network)
    with pytest.raises(Refusal, match="both sides must be even"):
        policy.network(policy.model, torch.randn(1, 4, 7, 8), time[:1], told.take(torch.tensor([0])))


def test_a_small_model_of_classes_is_saved_and_loaded(tmp_path: Path):
    policy, encoded = small(), pictures(2, (1, 8, 8))
    policy.save(tmp_path / "kept")
    again, kind = load(str(tmp_path / "kept"))
    assert kind == "pixels" and isinstance(again.process, Flow)
    with torch.no_grad():
        one, other = (Pictures(p).score(p, encoded, Want(seed=1)).logp for p in (policy, again))
    assert torch.equal(one, other)
    network, scheduler = pipelines.of_classes(2)
    with pytest.raises(Refusal, match="3 classes are named, but the network tells 2 apart"):
        of_classes_model(network, scheduler, ["a", "b", "c"])


def test_an_adapter_is_saved_as_diffusers_reads_it(tmp_path: Path):
    torch.manual_seed(0)
    built = pipelines.sd()
    built.save_pretrained(tmp_path / "start", safe_serialization=True)
    policy, _ = load(str(tmp_path / "start"), adapter=Adapter(4, 8))
    with torch.no_grad():
        for name, p in policy.named_trainable():
            assert "lora" in name
            p.copy_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    policy.save(tmp_path / "adapter")
    plain = pipelines.D.StableDiffusionPipeline.from_pretrained(tmp_path / "start", safety_checker=None)
    x, t, told = torch.randn(1, 4, 8, 8), torch.tensor([300.0]), policy.condition(policy.conditioner.encode(SAID)[0][None])
    ask = lambda network: network(x, t, encoder_hidden_states=told.states).sample  # noqa: E731
    with torch.no_grad():
        start = ask(plain.unet)
        plain.load_lora_weights(tmp_path / "adapter")
        assert float((ask(plain.unet) - start).abs().max()) > 1e-4
        torch.testing.assert_close(ask(plain.unet), ask(policy.model), rtol=1e-5, atol=1e-5)


def test_other_models_are_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model_index.json").write_text('{"_class_name": "AudioLDMPipeline", "_diffusers_version": "0.36.0"}')
    with pytest.raises(Refusal, match="is a AudioLDMPipeline; known are StableDiffusionPipeline"):
        load(str(tmp_path))
    with pytest.raises(Refusal, match="no diffusion model"):
        load(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(Refusal, match=r'pip install "penchant\[diffusion\]"'):
        load(str(tmp_path))

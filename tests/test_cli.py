"""The shell's promises: help at once, refusals in one sentence with the nearest valid name, exit codes that mean something.
What the commands do inside is tested with the rooms they call."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from penchant import cli
from penchant.command import flags, methods
from penchant.command.recipe import ASKED, REQUIRED, found, merge, read_recipe
from penchant.engine.settings import Settings
from penchant.errors import Refusal, StoppedRun
from tiny import tiny_model

GOLDEN = Path(__file__).with_name("golden")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command line."""
    code = cli.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_is_instant_and_loads_no_torch():
    script = (
        "import sys\nfrom penchant.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    for words in (["--help"], ["align", "--help"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True, timeout=60, env=here
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run.stdout.splitlines()[-1] == "False False"
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.7


def test_every_setting_is_a_flag_in_one_group_with_its_sentence_default_and_what_is_allowed():
    known = flags.flags(Settings)
    assert list(known) == list(Settings.model_fields)
    grouped = [name for names in flags.groups(Settings).values() for name in names]
    assert sorted(grouped) == sorted(Settings.model_fields) and len(flags.groups(Settings)) >= 4
    helped = " ".join(cli.build()[1]["align"].format_help().split())
    for flag in known.values():
        assert flag.said, f"{flag.name} has no docstring under it"
        assert f"{flag.option}" in helped
        assert " ".join(f"{flag.said} {flag.allowed} (default: {flag.default})".split()) in helped


def test_flags_follow_a_class_that_has_never_been_seen_before():
    from typing import Annotated, Literal

    from pydantic import Field

    class Own(BaseModel):
        model_config = ConfigDict(use_attribute_docstrings=True)
        # Cooking
        heat: Annotated[float, Field(gt=0, le=100)] | None = None
        """How hot, in %."""
        dish: Literal["soup", "bread"] = "soup"
        """What."""
        # Serving
        guests: tuple[Literal["ann", "bob"], ...] = ()
        """Who."""
        cold: bool = False
        """As it is."""

    assert flags.groups(Own) == {"Cooking": ["heat", "dish"], "Serving": ["guests", "cold"]}
    parser = cli.Parser(prog="x")
    flags.add_settings(parser, Own)
    help_text = " ".join(parser.format_help().split())
    assert "How hot, in %. [number > 0 and ≤ 100 or none] (default: none)" in help_text
    assert "[soup, bread] (default: soup)" in help_text
    arguments = parser.parse_args(["--heat", "none", "--guests", "ann,bob", "--no-cold"])
    assert flags.given(arguments, Own) == {"heat": None, "guests": ("ann", "bob"), "cold": False}
    assert flags.given(parser.parse_args([]), Own) == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["aling"], "There is no command 'aling'; did you mean 'align'?"),
        (["align", "--learning_rate", "1"], "did you mean '--learning-rate'?"),
        (["align", "--batch-size=4"], "`penchant align` has no flag '--batch-size'; did you mean '--batch'?"),
        (["align", "--model", "m"], "A run needs --data, --objective, --output."),
        (["check"], "The following arguments are required: DATA."),
        (["methods", "simpoo"], "did you mean 'SimPO'?"),
        (["methods", "--data", "pair"], "did you mean 'pairs'?"),
        (["cache", "clean"], "did you mean 'clear'?"),
        (["align", "a.yaml", "b.yaml"], "quote a value that holds spaces"),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest_valid_one(
    capsys: pytest.CaptureFixture[str], words: list[str], expected: str
):
    code, out, err = said(capsys, *words)
    assert code == 2
    assert expected in err and "Traceback" not in err
    assert out == ""


COMPLETE = ("--model", "m", "--data", "d", "--objective", "DPO()", "--output", "o")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--schedule", "lineer"), "schedule"),
        (("--batch", "0"), "batch"),
        (("--learning-rate", "nan"), "learning_rate"),
        (("--warmup", "half"), "warmup"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
):
    code, _, err = said(capsys, "align", *COMPLETE, *words)
    assert code == 2 and expected in err and words[1] in err


def test_a_recipe_holds_the_same_names_as_the_flags_and_flags_win_aloud(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: smollm2\ndata: pairs.jsonl\nobjective: DPO(beta=0.1)\noutput: runs/x\nlearning_rate: 1e-5\n")
    recipe = read_recipe(path, Settings.model_fields)
    asked, lines = merge(recipe, {"learning_rate": "2e-5", "batch": "8"}, path)
    assert asked == {**recipe, "learning_rate": "2e-5", "batch": "8"}
    assert len(lines) == 1 and "learning_rate = '1e-5' is replaced by '2e-5'" in lines[0]
    assert Settings.of({"learning_rate": recipe["learning_rate"]}).learning_rate == 1e-5


def test_a_recipe_that_comes_with_penchant_is_found_by_its_name_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe(found("diffusion-demo"), Settings.model_fields)
    assert {*REQUIRED} - {"output"} <= set(recipe)
    Settings.of({name: value for name, value in recipe.items() if name not in ASKED})
    Path("diffusion-demo").write_text("model: mine\n")
    assert read_recipe(found("diffusion-demo"), Settings.model_fields) == {"model": "mine"}
    for name in ("../recipes/diffusion-demo", "none", "recipe.yaml"):
        assert found(name) == Path(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: a\nmodel: b\n", "line 2: 'model' stands there twice"),
        ("modle: a\n", "there is no setting 'modle'; did you mean 'model'?"),
        ("learning-rate: 1e-5\n", "did you mean 'learning_rate'?"),
        ("model: 3\n", "model = 3: it must be a text"),
        ("- model\n", "must hold `name: value` lines"),
        ("", "must hold `name: value` lines"),
        ("model: [a\n", "is not YAML"),
        ("3: a\n", "line 1: the key 3 must be a word"),
        ("model: !!python/object/apply:os.system ['true']\n", "line 1: a recipe has no tags"),
        ("output: a\n", "--model, --data, --objective"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line_or_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    code, _, err = said(capsys, "align", str(path))
    assert code == 2 and expected in err


def test_a_missing_recipe_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    code, _, err = said(capsys, "align", "nowhere.yaml")
    assert (code, err) == (2, "penchant: there is no recipe nowhere.yaml; is the path right?\n")


class _Ends:
    """A command that ends in a given way."""

    __name__ = "penchant.command.cache"
    SUMMARY, USAGE, EXAMPLES = "ends", "penchant cache", ""

    def __init__(self, end: BaseException) -> None:
        self.end = end

    def add(self, parser: object) -> None:
        pass

    def run(self, arguments: object) -> int:
        raise self.end


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Refusal("no\x1b[31m."), 2),
        (StoppedRun("the loss is not finite."), 3),
        (OSError(28, "No space left on device", "runs/\x1b[31mx"), 4),
        (KeyError("no\x1b[31m"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_way_to_end_has_its_exit_code_and_one_clean_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
):
    monkeypatch.setattr(cli, "COMMANDS", (_Ends(end),))
    given, _, err = said(capsys, "cache")
    assert given == code
    assert "\x1b" not in err and "Traceback" not in err and err.count("\n") == 1
    if code != 130:
        traced = said(capsys, "cache", "--traceback")[2]
        assert "Traceback" in traced and "\x1b" not in traced


def test_methods_are_listed_filtered_and_shown_from_their_classes(capsys: pytest.CaptureFixture[str]):
    code, out, _ = said(capsys, "methods")
    assert code == 0 and "DPO" in out and "KTO" in out
    code, out, _ = said(capsys, "methods", "--data", "pairs", "--needs", "none", "--json")
    names = {one["name"] for one in json.loads(out)}
    assert {"SimPO", "ORPO"} <= names and not names & {"DPO", "KTO"}
    code, out, _ = said(capsys, "methods", "dpo")
    assert code == 0
    for part in ("log σ", "2305.18290", "beta = 0.1", "(0, inf)", "Pairs, one loss value per pair", "ref", "DPO(beta=0.1)"):
        assert part in out


def test_a_method_is_found_by_any_name_the_field_has_for_it_and_shows_what_stands_behind_it(
    capsys: pytest.CaptureFixture[str],
):
    code, out, _ = said(capsys, "methods", "ln-dpo")
    assert code == 0 and out.startswith("LNDPO   also known as LN-DPO")
    assert "0.686503" in out and "-0.004967" in out  # the published example, from tests/golden
    (shown,) = json.loads(said(capsys, "methods", "LNDPO", "--json")[1])
    assert len(shown["golden"]) == len(json.loads((GOLDEN / "lndpo.json").read_text(encoding="utf-8"))["cases"])
    code, out, _ = said(capsys, "methods", "dpo")
    assert "tried" in out and "make demo" in out  # from docs/claims.md


def test_a_name_that_several_methods_go_by_lists_them_and_the_reader_says_what_it_is_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from penchant.errors import Refusal
    from penchant.objectives import DPO, IPO
    from penchant.objectives.reader import read

    monkeypatch.setattr(DPO, "known_as", ("XPO",))
    monkeypatch.setattr(IPO, "known_as", ("XPO",))
    code, out, _ = said(capsys, "methods", "xpo")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[:2]] == ["DPO", "IPO"]
    assert "2 methods go by the name xpo" in out
    with pytest.raises(Refusal, match=r"there is no objective .XPO.; it is called DPO or IPO here"):
        read("XPO(beta=0.1)")


def test_the_way_a_method_is_called_can_be_read_back():
    from penchant.objectives import catalogue
    from penchant.objectives.describe import describe
    from penchant.objectives.reader import read

    for method in catalogue().values():
        assert isinstance(read(methods.called(describe(method))), method)


def test_the_cache_is_shown_cleared_in_part_and_cleared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))
    assert "nothing is cached" in said(capsys, "cache")[1]
    outside = tmp_path / "kept"
    outside.write_bytes(b"x" * 10)
    for part in ("models", "references"):
        (tmp_path / "cache" / part).mkdir(parents=True)
        (tmp_path / "cache" / part / "file").write_bytes(b"x" * 1500)
    (tmp_path / "cache" / "link").symlink_to(outside)
    out = said(capsys, "cache")[1]
    assert "models" in out and "2 kB" in out and str(tmp_path / "cache") in out
    code, _, err = said(capsys, "cache", "clear", "modles")
    assert code == 2 and "did you mean 'models'?" in err
    assert said(capsys, "cache", "clear", "models")[0] == 0
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["link", "references"]
    (tmp_path / "cache" / "locks").mkdir()  # runs under way keep others out of their folders by these
    assert said(capsys, "cache", "clear")[0] == 0
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / "locks"] and outside.exists()


def test_version_and_bare_call_say_what_to_do_next(capsys: pytest.CaptureFixture[str]):
    from penchant import __version__

    assert said(capsys, "--version")[:2] == (0, f"penchant {__version__}\n")
    code, out, _ = said(capsys)
    assert code == 0 and "commands:" in out and "exit codes:" in out


def test_what_a_run_is_asked_does_not_collide_with_a_setting():
    assert not set(ASKED) & set(Settings.model_fields)


def test_check_says_what_is_wrong_by_row_and_ends_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    good = '{"prompt": "Hi?", "chosen": "yes", "rejected": "no"}\n'
    path.write_text(good)
    code, out, _ = said(capsys, "check", str(path))
    assert code == 0 and "1 of 1 rows can be used" in out
    path.write_text(good + '{"prompt": "a", "chosen": "\\u001b[31mb", "rejected": "\\u001b[31mb"}\nnope\n')
    code, out, _ = said(capsys, "check", str(path))
    assert "chosen equals rejected: 1 of 3 (rows 2)" in out and "not JSON: 1 of 3 (rows 3)" in out
    assert code == 2 and "\x1b" not in out
    code, out, _ = said(capsys, "check", str(path), "--json")
    assert code == 2 and json.loads(out)["rows"] == 1
    code, _, err = said(capsys, "check", str(tmp_path / "pears.jsonl"))
    assert code == 2 and "did you mean" in err and "pairs.jsonl" in err


def test_check_with_a_model_counts_its_tokens(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Hi?", "chosen": "yes", "rejected": "no"}\n')
    code, out, _ = said(capsys, "check", str(path), "--model", str(tiny_model(tmp_path / "model")))
    assert code == 0 and "responses as encoded, tokens:" in out and "tokens: 0 least" not in out


def test_sample_answers_prompts_the_same_way_for_the_same_seed(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    model = str(tiny_model(tmp_path / "model"))
    words = ("sample", "--model", model, "--limit", "5", "--count", "2", "--seed", "3", "--json")
    code, first, _ = said(capsys, *words, "--prompt", "Hi?")
    assert code == 0
    answer = json.loads(first)
    assert answer["prompt"] == "Hi?" and len(answer["responses"]) == 2
    assert said(capsys, *words, "--prompt", "Hi?")[1] == first
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hi?"}\n{"prompt": "Ho?"}\n')
    lines = said(capsys, *words, "--prompts", str(prompts))[1].splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["Hi?", "Ho?"]
    greedy = ("sample", "--model", model, "--limit", "5", "--greedy", "--json", "--prompt", "Hi?", "--seed")
    assert said(capsys, *greedy, "1")[1] == said(capsys, *greedy, "2")[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--count", "0", "--prompt", "a"), "--count 0: it must be a whole number of at least 1"),
        (("--prompt", "a", "--prompts", "b"), "not allowed with argument"),
        ((), "One of the arguments --prompt --prompts is required"),
        (("--prompt", "a", "--top-p", "2"), "top_p"),
        (("--prompt", "a", "--batch", "2"), "`penchant sample` has no flag '--batch'"),
    ],
)
def test_sample_refuses_what_makes_no_sense_before_loading(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
):
    code, out, err = said(capsys, "sample", "--model", "nowhere", *words)
    assert (code, out) == (2, "") and expected in err


class _Finished:
    """What `penchant.align` gives back, as far as the shell reads it."""

    def __init__(self, ok: bool, interrupted: bool) -> None:
        self.verdict, self.interrupted = self, interrupted
        self.ok = ok


@pytest.mark.parametrize(("ok", "interrupted", "code"), [(True, False, 0), (False, False, 1), (False, True, 130)])
def test_align_hands_over_exactly_what_was_asked_and_ends_as_the_verdict_says(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ok: bool,
    interrupted: bool,
    code: int,
):
    import penchant.run

    seen: dict[str, object] = {}

    def align(model: str, data: str, objective: str, **rest: object) -> _Finished:
        seen.update(model=model, data=data, objective=objective, **rest)
        return _Finished(ok, interrupted)

    monkeypatch.setattr(penchant.run, "align", align)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: m\ndata: d.jsonl\nobjective: DPO()\noutput: o\njudge: vader\nrounds: 2\ntrackers: [tensorboard]\n"
    )
    given, _, err = said(capsys, "align", str(path), "--output", "p", "--unseen", "u.jsonl", "--lora-alpha", "none")
    assert given == code
    assert "output = 'o' is replaced by 'p' from the command line" in err
    assert seen == {
        "model": "m",
        "data": "d.jsonl",
        "objective": "DPO()",
        "output": "p",
        "judge": "vader",
        "guard": None,
        "unseen": "u.jsonl",
        "rounds": 2,
        "trackers": ("tensorboard",),
        "lora_alpha": None,
    }


def test_a_run_from_the_shell_ends_is_recognised_and_is_judged_again(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": f"No, {i + 1}."} for i in range(120)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["align", "--model", str(tiny_model(tmp_path / "model")), "--data", str(data), "--objective", "DPO(beta=0.1)"]
    words += ["--output", str(tmp_path / "run"), "--held-out", "24", "--learning-rate", "1e-3", "--limit", "4"]
    words += ["--precision", "fp32", "--sample-prompts", "2", "--threads", "1"]
    code, out, _ = said(capsys, *words)
    assert code == 0 and "learned" in out and (tmp_path / "run" / "model" / "model.safetensors").exists()
    code, out, _ = said(capsys, *words)
    assert code == 0 and "finished" in out
    code, _, err = said(capsys, *words, "--batch", "8")
    assert code == 2 and "batch: 16 there, 8 here" in err
    report = tmp_path / "run" / "report.html"
    report.unlink()
    code, out, _ = said(capsys, "evaluate", str(tmp_path / "run"), "--no-samples")
    assert code == 0 and "learned" in out
    assert "Content-Security-Policy" in report.read_text() and "What is" not in report.read_text()

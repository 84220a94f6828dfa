"""The same things from a shell: reads the command line, calls one command, turns its end into an exit code.
It computes nothing itself, and nothing imports it."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from typing import NoReturn

from penchant.command import align, cache, check, compare, evaluate, judge, methods, sample
from penchant.errors import LostRank, Refusal, StoppedRun, nearest
from penchant.words import plain

COMMANDS = (align, check, compare, sample, evaluate, judge, methods, cache)

EXAMPLES = """\
start here:
  penchant check pairs.jsonl
  penchant align --model smollm2 --data pairs.jsonl --objective "DPO(beta=0.1)" --output runs/first
  penchant methods

exit codes: 0 done; 1 the run ended, but its verdict says it did not work; 2 refused input;
3 stopped because its numbers cannot be trusted; 4 a file could not be read or written, such as on a full disk;
5 a fault of penchant itself; 6 another process of the run was lost;
130 interrupted (a checkpoint was saved)
`penchant COMMAND --help` says more about each command."""


class Page(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, up to 110 columns, with room for the flags' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(shutil.get_terminal_size().columns, 110) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Lines that break between words only: `all-linear` and `≥ 1` stay whole."""
        return textwrap.wrap(text, width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are refusals like any other, and which takes no abbreviated flags."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", Page)
        super().__init__(**options, allow_abbrev=False)  # pyright: ignore[reportArgumentType]

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message[0].upper()}{message[1:]}. `{self.prog} --help` shows what is taken.")


def build(only: str | None = None) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and the parser of each command by name. `only`: the one command whose flags are
    wanted; those of the others cost a good part of what `--help` takes, for they are made from the settings."""
    parser = Parser(
        prog="penchant",
        description="Aligns models with what people prefer, and says in plain words what came of it.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from, not only what it says")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    parsers: dict[str, Parser] = {}
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        summary = command.SUMMARY
        parsers[name] = commands.add_parser(
            name,
            help=summary,
            usage=command.USAGE,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=command.EXAMPLES,
        )
        if only is None or only == name:
            command.add(parsers[name])
        # Also after the command, where people write it; SUPPRESS keeps an earlier --traceback.
        parsers[name].add_argument(
            "--traceback", action="store_true", default=argparse.SUPPRESS, help="show where an error came from"
        )
    return parser, parsers


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag a parser takes."""
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace; an unknown command or flag is refused with the nearest valid one."""
    words = [word for word in argv if not word.startswith("-")]
    parser, parsers = build(words[0] if words else "")
    if words and words[0] not in parsers and argv[0] == words[0]:
        raise Refusal(f"There is no command {plain(words[0], 40)!r}; {nearest(words[0], parsers)}")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        raise Refusal(_unknown(unknown, arguments.command, options_of(parsers.get(arguments.command or "", parser))))
    return arguments


def _unknown(unknown: Sequence[str], command: str | None, options: Iterable[str]) -> str:
    name = unknown[0].partition("=")[0]
    where = f"penchant {command}" if command else "penchant"
    if name.startswith("-"):
        return f"`{where}` has no flag {plain(name, 40)!r}; {nearest(name, options)}"
    return f"`{where}` does not know what to do with {plain(name, 60)!r}; quote a value that holds spaces."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    # Threads that wait for work burn a core each unless told to sleep: it must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character is shown its number, not a traceback
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if argv is None else argv)
    shown = "--traceback" in argv
    try:
        arguments = parse(argv)
        if arguments.version:
            from penchant.version import __version__

            print(f"penchant {__version__}")
            return 0
        if arguments.command is None:
            build("")[0].print_help()
            return 0
        command = next(c for c in COMMANDS if c.__name__.endswith(f".{arguments.command}"))
        return command.run(arguments)
    except (Refusal, StoppedRun, LostRank) as error:
        if shown:
            print(plain(traceback.format_exc()), file=sys.stderr, end="")
        print(f"penchant: {plain(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("penchant: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`penchant methods | head`): nothing more to say, and nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk, a folder that may not be written: nothing is wrong with what was asked.
        if shown:
            print(plain(traceback.format_exc()), file=sys.stderr, end="")
        where = f" ({plain(error.filename)})" if error.filename is not None else ""
        print(
            f"penchant: {plain(error.strerror or error)}{where}. What was saved before is whole: mend this, and the same "
            "command goes on.",
            file=sys.stderr,
        )
        return 4
    except Exception as error:
        # Nothing of this kind should end here. It is no verdict on a run, which Python's own exit code 1 would say it is.
        if shown:
            print(plain(traceback.format_exc()), file=sys.stderr, end="")
        print(
            f"penchant: this is a fault of penchant itself ({type(error).__name__}: {plain(error, 400)}). Please report it with "
            "what the same command says with --traceback.",
            file=sys.stderr,
        )
        return 5


if __name__ == "__main__":
    sys.exit(main())

"""Every code block of the documentation runs, or says why it does not."""

import configparser
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.docs.workspace import FRAMES, Workspace

_ROOT = Path(__file__).parents[2]
# Made from the code, and from READMEs that other tests run.
_GENERATED = "<!-- Written by docs/generated.py"
_PAGES = sorted(
    path
    for path in (*(_ROOT / "docs").rglob("*.md"), _ROOT / "README.md")
    if "_build" not in path.parts and not path.read_text("utf-8").startswith(_GENERATED)
)
_NOT_RUN = re.compile(r"<!-- not run: (.{10,}?) -->")
# Not code: output, files of a user, and Sphinx's own directives.
_NOT_CODE = ("text", "{toctree}", "{include}")


@dataclass(frozen=True)
class Block:
    """A fenced block; reason: why it is not run, or empty."""

    page: Path
    line: int
    language: str
    code: str
    reason: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(_ROOT)}:{self.line}"


def _blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    reason = ""
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "html_block":
            found = _NOT_RUN.search(token.content)
            reason = found[1] if found else ""
        elif token.type == "fence":
            assert token.map
            yield Block(page, token.map[0] + 1, token.info.split(" ")[0], token.content, reason)
            reason = ""
        else:
            assert not reason, f"{page}: the comment {reason!r} precedes no block"


_BLOCKS = [block for page in _PAGES for block in _blocks(page)]


def _blocks_of(language: str) -> list[Block]:
    return [block for block in _BLOCKS if block.language == language and not block.reason]


@pytest.mark.parametrize("block", _blocks_of("console"), ids=lambda block: block.where)
def test_commands_succeed(block: Block, here: Workspace) -> None:
    commands = re.findall(r"^\$ (.*)$", block.code, re.MULTILINE)
    assert commands, f"{block.where}: no line begins with a prompt"
    for command in commands:
        here.run_command(command.partition("  #")[0].strip())


@pytest.mark.parametrize("block", _blocks_of("python"), ids=lambda block: block.where)
def test_programs_succeed(block: Block, here: Workspace) -> None:
    here.run_python(block.code)


@pytest.mark.parametrize("block", _BLOCKS, ids=lambda block: block.where)
def test_every_block_is_run_or_well_formed_or_says_why_not(block: Block) -> None:
    match block.language:
        case "console" | "python":
            pass
        case "toml":
            tomllib.loads(block.code)
        case "yaml":
            assert yaml.safe_load(block.code)
        case "json":
            assert [json.loads(line) for line in block.code.splitlines()]
        case "ini":
            assert configparser.ConfigParser(strict=False).read_string(block.code) is None
        case language:
            assert language in _NOT_CODE, f"{block.where}: the language {language!r} is not checked"


def test_the_program_for_video_answers_every_frame_of_a_file(here: Workspace) -> None:
    (block,) = (block for block in _blocks_of("python") if block.page.stem == "video")
    # A busy machine may miss the guide's deadline for a frame.
    output = here.run_python(block.code.replace("timeout=0.2", "timeout=30"))
    assert output.count("cat") == output.count("dog") == FRAMES


def test_a_broken_command_is_noticed(here: Workspace) -> None:
    with pytest.raises(AssertionError, match="no-such-model"):
        here.run_command("visavis classify street.jpg --model no-such-model")

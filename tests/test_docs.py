"""The documents say what the code does: their commands run or at least exist, examples run, linked files are there.

Within a document, in order and in one folder: a ```bash block is run by bash, a ```python block by Python, and a block
whose first line is a comment with a file name becomes that file. A bash block below `<!-- not run: WHY -->` is not
run; its `nas` and `ray` commands must be valid then. `<!-- continues: NAME.md -->` starts with the files of another.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import warm_python
import yaml

from nas import cli
from search_spaces.network import NetworkSpace

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md")])
GUIDES = (
    "first-hour.md", "own-data.md", "own-space.md", "own-strategy.md", "own-cluster.md", "operating-the-service.md",
    "training.md", "models.md",
)  # fmt: skip
FENCE = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
NAS = typer.main.get_command(cli.app)
PORT = "8390"  # of `nas serve` in the documents: a free one takes its place
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of Ray's own command line


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    why: str | None  # it is not run

    @property
    def file(self) -> str | None:
        """The file that it becomes."""
        named = re.match(r"# ([\w.-]+\.\w+)\b", self.text)
        return named[1] if named else None

    @property
    def program(self) -> list[str] | None:
        """What runs it."""
        if self.why or self.file:
            return None
        return {
            "bash": ["bash", "-euo", "pipefail", "-c"],
            "python": [warm_python.python(), "-c"],
        }.get(self.language)


def blocks(document: Path) -> list[Block]:
    found = FENCE.finditer(document.read_text())
    return [Block(match["language"], match["text"], match["why"]) for match in found]


def commands(text: str) -> list[list[str]]:
    """The simple commands of a shell text, as lists of words without redirections and variables."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("|&;()"):
                while words and re.match(r"\w+=", words[0]):
                    words = words[1:]
                if words:
                    found.append(words)
                words = []
            elif set(token) <= set("<>"):
                words.append(token)
            elif words and set(words[-1]) <= set("<>"):
                words.pop()
            else:
                words.append(token)
    return found


def check_command(words: list[str]) -> None:
    """Raises for an unknown command or option of `nas` and `ray`, a missing one, and a value of another type."""
    if words[0] == "torchrun":
        words = ["nas", *words[words.index("nas.cli") + 1 :]]
    if words[0] == "nas":
        group: Any = NAS
    elif words[0] == "ray":
        from ray.scripts.scripts import cli as group
    else:
        return
    command = group.commands[words[1]]
    command.make_context(words[1], words[2:])


def unrun() -> list[Any]:
    found = []
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "bash" and (block.why or document.parent.name == "benchmarks"):
                for words in commands(block.text):
                    found.append(pytest.param(words, id=f"{document.name}: {' '.join(words)[:60]}"))
    return found


@pytest.mark.parametrize("words", unrun())
def test_a_command_that_is_not_run_is_valid(words: list[str]) -> None:
    check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "nas serch runs/a", "nas search runs/a --n-trails 3", "nas search runs/a --n-trials many", "nas export runs/a",
        "A=b ray start --heads", "true && nas jobs --addres http://head:8265",
        "torchrun --nproc-per-node 4 -m nas.cli train --spaces digits -o runs/a",
    ],
)  # fmt: skip
def test_an_invalid_command_is_found(line: str) -> None:
    *others, invalid = commands(line)
    assert others in ([], [["true"]])
    with pytest.raises(Exception, match=r"No such option|valid integer|Missing parameter|serch"):
        check_command(invalid)


def run_document(name: str, folder: Path) -> None:
    """Runs the blocks of a guide in the folder; fails with the output of the first block that fails."""
    path = f"{warm_python.folder()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    unset = {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "NAS_TOKEN"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {
        "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder), "COLUMNS": "120",
        "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for block in blocks(ROOT / "docs" / name):
        text = block.text.replace(PORT, port)
        if block.file:
            (folder / block.file).write_text(text)
        if block.program:
            done = subprocess.run(
                [*block.program, text], cwd=folder, env=environment, text=True, check=False, timeout=600,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stdout}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives the folder that a guide has left behind, which is not to be written to; it is run once."""
    folders: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in folders:
            before = re.search(r"<!-- continues: (\S+) -->", (ROOT / "docs" / name).read_text())
            folder = tmp_path_factory.mktemp(Path(name).stem)
            if before:
                shutil.copytree(of(before[1]), folder, dirs_exist_ok=True)
            run_document(name, folder)
            folders[name] = folder
        return folders[name]

    return of


@pytest.mark.parametrize("name", GUIDES)
def test_what_a_guide_says_runs(name: str, finished: Any) -> None:
    finished(name)


def test_there_is_nothing_to_run_but_in_the_guides() -> None:
    for document in DOCUMENTS:
        if document.parent.name == "docs":
            assert document.name in GUIDES
        elif document.parent == ROOT:
            assert [block.text for block in blocks(document) if block.program] == []


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(block.text, id=f"{document.name}: {block.file}")
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "yaml"
    ],
)
def test_a_space_example_is_a_space(example: str) -> None:
    assert NetworkSpace.from_dict(yaml.safe_load(example)).size() > 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_and_headings_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        page = document.parent / name if name else document
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

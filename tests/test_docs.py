"""The documents say what the code does: commands and options exist, examples run, linked files are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from search_spaces.network import NetworkSpace

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(language):
    for document in DOCUMENTS:
        for block in re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL):
            yield document.name, block


def commands():
    for name, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "nas":
                yield pytest.param(words[1:], id=f"{name}: {line.strip()[:60]}")


@pytest.fixture(scope="module")
def help_of():
    """The help of every command that the documents name, of one process."""
    names = sorted({parameters.values[0][0] for parameters in commands()})
    code = f"""
import sys
from nas import cli
for name in {names!r}:
    sys.argv = ["nas", name, "--help"]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, name
    print(chr(0), flush=True)
"""
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "PATH": "/usr/bin:/bin", "TERMINAL_WIDTH": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    return dict(zip(names, done.stdout.split("\0\n")[:-1], strict=True))


@pytest.mark.parametrize("words", list(commands()))
def test_every_command_and_option_exists(words, help_of):
    text = help_of[words[0]]
    for option in (word.partition("=")[0] for word in words if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), option


@pytest.mark.parametrize("example", [pytest.param(code, id=name) for name, code in blocks("python")])
def test_every_python_example_runs(example, capsys):
    exec(compile(example, "example", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("example", [pytest.param(text, id=name) for name, text in blocks("yaml")])
def test_every_space_example_is_a_space(example):
    assert NetworkSpace.from_dict(yaml.safe_load(example)).size() > 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert target.startswith("http") or (document.parent / target).exists(), target

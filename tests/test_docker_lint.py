"""The Dockerfile by the rules of hadolint that matter here, which a test can check without Docker or hadolint."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, *kinds: str) -> list[str]:
        return [text for kind, text in self.instructions if kind in kinds]


def stages(text: str) -> list[Stage]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind.upper() == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip()))
        elif found:
            found[-1].instructions.append((kind.upper(), rest.strip()))
    return found


def complaints(text: str) -> Iterator[str]:
    found = stages(text)
    names = [stage.name for stage in found]
    if len(set(names)) < len(names):
        yield "DL3024 two stages of one name"
    for index, stage in enumerate(found):
        if stage.base not in names[:index]:
            tag = stage.base.rpartition(":")[2] if ":" in stage.base else ""
            if not tag:
                yield "DL3006 a base without a tag"
            elif not re.search(r"\d+\.\d+\.\d+", tag):
                yield "DL3007 a base that is not pinned to a version"
        yield from _of_stage(stage, names[:index])
    for stage in found:
        used = any(other.base == stage.name or f"--from={stage.name}" in str(other.instructions) for other in found)
        users = stage.of("USER")
        if not used and (not users or users[-1].partition(":")[0] in ("root", "0")):
            yield "DL3002 the last user is root, or not said"


def _of_stage(stage: Stage, earlier: list[str]) -> Iterator[str]:
    for text in stage.of("RUN"):
        for command in re.split(r"&&|;|\|\|", text):
            words = command.split()
            if words[:1] == ["cd"]:
                yield "DL3003 cd instead of WORKDIR"
            if words[:1] == ["sudo"]:
                yield "DL3004 sudo"
            if words[:2] == ["pip", "install"]:
                if "--no-cache-dir" not in words:
                    yield "DL3042 pip with a cache"
                pinned = any(word in ("--constraint", "-c") or "==" in word or word.endswith(".whl") for word in words)
                if not pinned:
                    yield "DL3013 pip without versions"
            if words[:2] == ["apt-get", "install"]:
                if "--no-install-recommends" not in words:
                    yield "DL3015 apt-get with recommendations"
                if not {"-y", "--yes"} & set(words):
                    yield "DL3014 apt-get that asks"
                if "rm -rf /var/lib/apt/lists" not in text:
                    yield "DL3009 lists of apt-get are left"
            if words[:1] == ["apt"]:
                yield "DL3027 apt instead of apt-get"
            if {"curl", "wget"} & set(words) and "|" in text:
                yield "DL4006 a download piped into something"
    for text in stage.of("ADD"):
        yield f"DL3020 ADD instead of COPY: {text}"
    for text in stage.of("WORKDIR"):
        if not text.startswith("/"):
            yield "DL3000 a relative WORKDIR"
    for text in stage.of("COPY"):
        source = re.search(r"--from=(\S+)", text)
        if source and source[1] not in earlier:
            yield "DL3022 COPY from an unknown stage"
    for text in stage.of("CMD", "ENTRYPOINT"):
        if not text.startswith("["):
            yield "DL3025 a command in the form of the shell"
    for text in stage.of("ENV", "ARG"):
        if re.search(r"(TOKEN|SECRET|PASSWORD|KEY)=(?!/)\S", text):
            yield "a secret in the image"


def test_the_dockerfile_breaks_no_rule() -> None:
    assert list(complaints(DOCKERFILE)) == []


GOOD = "FROM rayproject/ray:2.60.0-py311 AS base\nUSER ray\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM rayproject/ray\nUSER ray\n", "DL3006"),
        ("FROM rayproject/ray:latest\nUSER ray\n", "DL3007"),
        ("FROM rayproject/ray:2.60.0\n", "DL3002"),
        (GOOD + "USER root\n", "DL3002"),
        (GOOD + "USER 0:0\n", "DL3002"),
        (GOOD + GOOD, "DL3024"),
        (GOOD + "RUN cd x && make\n", "DL3003"),
        (GOOD + "RUN true && sudo make\n", "DL3004"),
        (GOOD + "RUN pip install \\\n    --no-cache-dir torch\n", "DL3013"),
        (GOOD + "RUN pip install torch==2.15.0\n", "DL3042"),
        (GOOD + "RUN apt-get install -y git && rm -rf /var/lib/apt/lists/*\n", "DL3015"),
        (GOOD + "RUN apt-get install --no-install-recommends git && rm -rf /var/lib/apt/lists/*\n", "DL3014"),
        (GOOD + "RUN apt-get install -y --no-install-recommends git\n", "DL3009"),
        (GOOD + "RUN apt install git\n", "DL3027"),
        (GOOD + "RUN curl http://example.com | sh\n", "DL4006"),
        (GOOD + "ADD nas nas\n", "DL3020"),
        (GOOD + "WORKDIR nas\n", "DL3000"),
        (GOOD + "COPY --from=wheel a b\n", "DL3022"),
        (GOOD + "CMD nas serve\n", "DL3025"),
        (GOOD + "ENV NAS_TOKEN=abc\n", "a secret"),
    ],
)
def test_what_breaks_a_rule_is_found(text: str, rule: str) -> None:
    assert [complaint.startswith(rule) for complaint in complaints(text)] == [True]


def test_both_targets_install_the_same() -> None:
    by_name = {stage.name: stage for stage in stages(DOCKERFILE)}
    assert set(by_name) == {"wheel", "cpu", "cuda"}
    cpu, cuda = ([entry for entry in by_name[name].instructions if entry[0] != "ARG"] for name in ("cpu", "cuda"))
    assert cpu == cuda
    assert by_name["cuda"].base == f"{by_name['cpu'].base}-gpu"


def test_what_is_copied_is_there_and_nothing_else_is_seen() -> None:
    patterns = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    seen = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert "*" in patterns
    sources = set[str]()
    for stage in stages(DOCKERFILE):
        for text in stage.of("COPY"):
            if "--from" not in text:
                sources |= {word for word in shlex.split(text)[:-1] if not word.startswith("--")}
    assert sources == seen
    for source in sources:
        assert (ROOT / source).exists(), source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert all(any(fnmatch.fnmatch(source, pattern) for source in sources) for pattern in packages)


def test_the_list_of_requirements_is_the_projects(tmp_path: Path) -> None:
    """By the Dockerfile's own command, run by this Python."""
    command = next(text for stage in stages(DOCKERFILE) for text in stage.of("RUN") if "requirements.txt" in text)
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    command = command.replace("python -c", f"{shlex.quote(sys.executable)} -c", 1)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    written = (tmp_path / "requirements.txt").read_text().split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) < set(written)
    assert "" not in written[:-1]

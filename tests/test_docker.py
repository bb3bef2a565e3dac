"""The files in docker/, as far as that can be checked without Docker: versions, commands, and that nothing is open."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from nas import cli

ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in (ROOT / "docker").iterdir() if path.name != "ray_token")
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def nas_commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"(?:entrypoint: |#   )nas (.+)", text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_and_versions_are_the_projects(path: Path) -> None:
    text = path.read_text()
    assert RAY is not None
    assert set(re.findall(r'(?:rayproject/ray:|rayVersion: ")([\d.]+)', text)) <= {RAY[1]}
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, *arguments in nas_commands(text):
        commands[name].make_context(name, arguments)  # raises for an unknown option


def test_the_files_hold_what_is_checked_above() -> None:
    texts = {path.name: path.read_text() for path in FILES}
    assert "rayproject/ray:" in texts["Dockerfile"]
    assert "rayVersion:" in texts["rayjob.yaml"]
    assert [words[0] for words in nas_commands(texts["compose.yaml"])] == ["launch"]
    assert [words[0] for words in nas_commands(texts["rayjob.yaml"])] == ["search"]


def test_every_node_wants_the_token() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert set(services) == {"head", "worker"}
    for service in services.values():
        assert service["secrets"] == ["ray_token"]
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert services["head"]["ports"] == ["127.0.0.1:8265:8265"]
    assert "RAY_AUTH_MODE=token" in (ROOT / "docker" / "Dockerfile").read_text()
    job = yaml.safe_load((ROOT / "docker" / "rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}

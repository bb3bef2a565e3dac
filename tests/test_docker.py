"""The files in docker/, as far as that can be checked without Docker: versions, commands, and that nothing is open."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from services import TOKEN, serving

from benchmarks.compose_without_containers import COMPOSE, Machine, interpolated, services
from nas import cli

ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in (ROOT / "docker").iterdir() if not path.name.endswith("_token"))
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
VARIABLES = {"NAS_FILES": "/srv/nas"}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of Ray's own command line

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
DURATION = {"type": "string", "pattern": r"^\d+(s|m)$"}
# The fields of the compose specification that the file uses: what is misspelt is none of them.
SERVICE = {
    "type": "object",
    "required": ["image", "command", "user", "environment", "secrets", "healthcheck", "restart"],
    "additionalProperties": False,
    "properties": {
        "image": TEXT, "command": TEXT, "user": TEXT, "secrets": TEXTS, "volumes": TEXTS, "ports": TEXTS,
        "cap_drop": TEXTS, "security_opt": TEXTS, "environment": {"type": "object", "additionalProperties": TEXT},
        "build": {
            "type": "object", "additionalProperties": False,
            "properties": {"context": TEXT, "dockerfile": TEXT, "target": {"enum": ["cpu", "cuda"]}},
        },
        "shm_size": {"type": "string", "pattern": r"^\d+(mb|gb)$"},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "deploy": {
            "type": "object", "additionalProperties": False, "properties": {"replicas": {"type": "integer"}},
        },
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object", "additionalProperties": False, "required": ["condition"],
                "properties": {"condition": {"enum": ["service_started", "service_healthy"]}},
            },
        },
        "healthcheck": {
            "type": "object", "additionalProperties": False, "required": ["test"],
            "properties": {"test": TEXTS, "interval": DURATION, "timeout": DURATION, "retries": {"type": "integer"}},
        },
    },
}  # fmt: skip


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE.read_text(), VARIABLES))
    return read


def check_command(words: list[str]) -> None:
    """Raises for an option or a value that the command does not take."""
    if words[0] == "ray":
        from ray.scripts.scripts import cli as group
    else:
        assert words[0] == "nas"
        group = typer.main.get_command(cli.app)  # type: ignore[assignment]
    group.commands[words[1]].make_context(words[1], words[2:])


def nas_commands(text: str) -> list[list[str]]:
    return [["nas", *shlex.split(line)] for line in re.findall(r"(?:entrypoint: |#   )nas (.+)", text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_and_versions_are_the_projects(path: Path) -> None:
    text = path.read_text()
    assert RAY is not None
    assert set(re.findall(r'(?:rayproject/ray:|rayVersion: ")([\d.]+)', text)) <= {RAY[1]}
    assert set(re.findall(r"\bnas:([\w.]+)", text)) <= {VERSION}
    assert "latest" not in text
    for words in nas_commands(text):
        check_command(words)


def test_the_files_hold_what_is_checked_above() -> None:
    texts = {path.name: path.read_text() for path in FILES}
    assert "rayproject/ray:" in texts["Dockerfile"]
    assert "rayVersion:" in texts["rayjob.yaml"]
    assert [words[1] for words in nas_commands(texts["compose.yaml"])] == ["launch"]
    assert [words[1] for words in nas_commands(texts["rayjob.yaml"])] == ["search"]


def test_compose_has_fields_of_the_specification() -> None:
    found = compose()
    assert {name for name in found if not name.startswith("x-")} == {"name", "services", "secrets"}
    for service in found["services"].values():
        jsonschema.validate(service, SERVICE)
    with pytest.raises(jsonschema.ValidationError, match="shmsize"):
        jsonschema.validate(found["services"]["head"] | {"shmsize": "2gb"}, SERVICE)


@pytest.mark.parametrize("name", ["head", "worker", "service"])
def test_what_a_container_runs_is_valid(name: str) -> None:
    service = services(VARIABLES)[name]
    check_command(service["command"])
    check = service["healthcheck"]["test"]
    if check[0] == "python":
        compile(check[2], "health check", "exec")
    else:
        check_command(check)


def test_every_container_wants_the_token_and_is_reached_from_this_machine_alone() -> None:
    found = compose()["services"]
    assert set(found) == {"head", "worker", "service"}
    for name, service in found.items():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert set(service["secrets"]) == {"ray_token"} | ({"nas_token"} if name == "service" else set())
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["user"].partition(":")[0] not in ("0", "root")
        assert service["shm_size"]
    assert "--token-file /run/secrets/nas_token" in found["service"]["command"]
    assert "RAY_AUTH_MODE=token" in (ROOT / "docker" / "Dockerfile").read_text()
    job = yaml.safe_load((ROOT / "docker" / "rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_secrets_are_files_that_git_and_the_image_do_not_take() -> None:
    for name, secret in compose()["secrets"].items():
        path = ROOT / "docker" / secret["file"]
        assert path.name == name
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0
    assert "*" in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()


def test_the_folder_of_runs_must_be_named() -> None:
    with pytest.raises(KeyError, match="NAS_FILES: the folder of runs and data sets"):
        services({})


def test_compose_without_containers_starts_what_compose_names(tmp_path: Path) -> None:
    """Not the processes: their commands, with this machine's addresses, ports and files in the place of containers'."""
    machine, found = Machine(tmp_path), services({"NAS_FILES": str(tmp_path / "files")})
    for name, service in found.items():
        words = machine.command(service["command"], name)
        check_command([service["command"][0], *words[words.index(service["command"][1]) :]])
        text = " ".join([*words, *machine.command(service["healthcheck"]["test"], name)])
        text += " ".join(machine.environment(service).values())
        assert not re.search(r"/run/secrets|head:|0\.0\.0\.0|\b8390\b|\b8265\b|\b6379\b", text), text
    serve = machine.command(found["service"]["command"], "service")
    assert serve[serve.index("--token-file") + 1] == str(tmp_path / "nas_token")
    assert serve[serve.index("--address") + 1] == f"http://127.0.0.1:{machine.dashboard}"


def test_the_service_is_healthy_for_who_has_its_token_alone(tmp_path: Path) -> None:
    """The health check that compose runs, on a service with a token."""
    machine, found = Machine(tmp_path), services({"NAS_FILES": str(tmp_path)})["service"]
    check = machine.command(found["healthcheck"]["test"], "service")

    def healthy(token: str) -> bool:
        (tmp_path / "nas_token").write_text(token + "\n")
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    with serving(tmp_path, port=machine.web, NAS_TOKEN=TOKEN):
        assert not healthy(f"{TOKEN}x")
        assert healthy(TOKEN)


def test_docker_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    """Reading a file takes the client and its plugin, and no engine."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command here")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker command here has no compose plugin")
    shown = subprocess.run(
        ["docker", "compose", "-f", COMPOSE, "config", "--format", "json"],
        env=os.environ | {"NAS_FILES": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(json.loads(shown.stdout)["services"]) == {"head", "worker", "service"}

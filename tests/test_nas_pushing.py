"""Exported models on the Hub: the real client against a server of our own; what is refused, and that it says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub import TOKEN, serving

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (the extra `hub`)")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def model(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def hub():
    with serving() as hub:
        yield hub


def push(hub_url, *arguments, token=TOKEN, before="", home="/nowhere"):
    """`nas push` in a process of its own, which reads the Hub's address when it starts; code, stdout, stderr."""
    # without Xet, the Hub's newer way of storing large files: its server is more than a test can stand in for
    environment = os.environ | {
        "HF_ENDPOINT": hub_url, "HF_HOME": home, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    if not token:
        del environment["HF_TOKEN"]
    code = (
        f"import sys\n{before}\nsys.argv = ['nas', 'push', *sys.argv[1:]]\nfrom nas import cli\n"
        "try: cli.main()\nfinally: assert not {'torch', 'ray', 'optuna'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_pushed_model_is_the_folder_in_one_commit(hub, model):
    (model / "mine.txt").write_text("beside the model")
    (model / "__pycache__").mkdir()
    (model / "__pycache__" / "model.pyc").write_bytes(b"cache")
    (model / ".secret").write_text("hidden")
    code, out, err = push(hub.url, model, "--to", "me/tiny", "--json")
    assert code == 0, err
    files = ["README.md", "certificate.json", "config.json", "mine.txt", "model.py", "model.safetensors"]
    assert json.loads(out) == {"repo": "me/tiny", "url": f"{hub.url}/me/tiny", "commit": f"{1:040x}", "files": files}
    assert hub.repos == {"me/tiny": {name: (model / name).read_bytes() for name in files}}
    assert list(hub.blobs.values()) == [(model / "model.safetensors").read_bytes()]

    (model / "README.md").write_text("another card")
    code, out, err = push(hub.url, model, "--to", "me/tiny")
    assert code == 0, err
    assert f"6 files are at {hub.url}/me/tiny: README.md, certificate.json" in out
    assert "next: hf download me/tiny --local-dir model" in err
    assert hub.repos["me/tiny"]["README.md"] == b"another card"


@pytest.mark.parametrize(
    ("to", "token", "code", "message"),
    [
        ("me/tiny", "", 1, "log in with `hf auth login`, or set HF_TOKEN"),
        ("me/tiny", "hf_wrong", 1, "log in with `hf auth login`, or set HF_TOKEN"),
        ("others/tiny", TOKEN, 1, "rights to create a model under others"),
        ("tiny", TOKEN, 2, "'tiny' is no name of a repository; valid: ORG/NAME, such as me/tiny"),
        ("a/b/c", TOKEN, 2, "'a/b/c' is no name of a repository, ORG/NAME"),
        ("me/ti ny", TOKEN, 2, "'me/ti ny' is no name of a repository, ORG/NAME"),
        ("", TOKEN, 2, "'' is no name of a repository"),
    ],
)
def test_a_repository_that_cannot_be_written_is_named(hub, model, to, token, code, message, tmp_path):
    found, out, err = push(hub.url, model, "--to", to, token=token, home=str(tmp_path / "hf"))
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert hub.commits == 0


def test_a_hub_that_does_not_answer_is_named(model):
    code, _, err = push("http://127.0.0.1:9", model, "--to", "me/tiny")
    assert code == 1
    assert "the Hub at http://127.0.0.1:9 cannot be reached" in err


def change(model, **check):
    certificate = json.loads((model / "certificate.json").read_text())
    certificate["formats"]["safetensors"] |= check
    (model / "certificate.json").write_text(json.dumps(certificate))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda m: m.rename(m.with_name("model.failed")),
            "model.failed failed its checks and is not pushed: as its na",
        ),
        (lambda m: m.rename(m.with_name("model.failed2")), "model.failed2 failed its checks and is not pushed"),
        (
            lambda m: change(m, max_delta=0.5),
            "model failed its checks and is not pushed: logits of model.safetensors differ by 0.5",
        ),
        (lambda m: (m / "model.safetensors").unlink(), "model is no exported model: it lacks model.safetensors"),
        (lambda m: (m / "certificate.json").write_text("{}"), "certificate.json is no certificate of an exported"),
        (lambda m: (m / "certificate.json").write_text("no json"), "certificate.json is no certificate of an exp"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_what_is_no_sound_export_is_refused(hub, model, damage, message):
    damage(model)
    (folder,) = [*model.parent.glob("model*")] or [model]
    code, _, err = push(hub.url, folder, "--to", "me/tiny")
    assert code == 2
    assert message in err
    assert hub.repos == {}


def test_without_the_extra_the_command_says_what_to_install(model):
    code, _, err = push("http://127.0.0.1:9", model, "--to", "me/tiny", before="sys.modules['huggingface_hub'] = None")
    assert code == 2
    assert "pip install 'nas-service[hub]'" in err

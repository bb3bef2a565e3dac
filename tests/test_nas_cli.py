"""The command as a user types it: what it prints, where results go, and a clear error with exit code for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent


def light_python(code, environment=None):
    """Runs `code` in a fresh interpreter that has imported nothing yet."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


HEAVY = "{'torch', 'ray', 'optuna', 'matplotlib', 'sklearn', 'pandas'} & set(sys.modules)"


def test_help_imports_nothing_heavy():
    done = light_python(
        "import sys\nsys.argv = ['nas', '--help']\nfrom nas import cli\n"
        f"try: cli.main()\nexcept SystemExit: print({HEAVY})"
    )
    assert done.stdout.endswith("set()\n")
    for command in ("spaces", "train", "trust", "search", "pareto", "finetune", "export", "demo"):
        assert command in done.stdout


def test_unreachable_limits_are_refused_before_torch_or_ray_are_imported(trained_run):
    done = light_python(
        f"import sys\nsys.argv = ['nas', 'search', {str(trained_run)!r}, '--max-macs', '10k', '--max-params', '1M']\n"
        f"from nas import cli\ntry: cli.main()\nexcept SystemExit as stop: print(stop.code, {HEAVY})"
    )
    assert done.stdout == "2 set()\n"
    assert "macs ≤ 10k (nearest reachable: 312.6k)" in done.stderr
    assert "Traceback" not in done.stderr


def test_spaces_as_json_is_one_document(nas):
    code, out, _ = nas("spaces", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["resnet20_pooling"]["size"] == 36
    assert rows["resnet_cifar"]["macs_min"] < 10e6 < 150e6 < rows["resnet_cifar"]["macs_max"]
    code, out, err = nas("spaces")
    assert code == 0
    assert "resnet_cifar" in out
    assert err.startswith("next: nas train")


def test_train_leaves_a_complete_run(trained_run):
    assert {f.name for f in trained_run.iterdir()} >= {
        "run.json", "checkpoint.safetensors", "metrics.jsonl", "training.png", "tensorboard",
    }  # fmt: skip
    records = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records if "val_top1_max" in r] == [1, 2, 3]
    assert list((trained_run / "tensorboard").glob("events*"))
    assert Image.open(trained_run / "training.png").size > (600, 300)


def test_search_pareto_export_chain(nas, run_copy, tmp_path):
    code, out, err = nas("search", run_copy, "--n-trials", 12, "--num-workers", 0, "--max-macs", "2M", "--seed", 1)
    assert code == 0, err
    assert "12 trials, 0 failed; macs ≤ 2M" in out
    assert f"next: nas export {run_copy} --best" in err

    code, out, _ = nas("pareto", run_copy, "--json")
    study = json.loads(out)
    assert study["n_trials"] == 12
    assert study["objectives"] == {"top1": "maximize", "macs": "minimize"}
    assert all(row["metrics"]["macs"] <= 2e6 for row in study["front"])
    assert Image.open(run_copy / "front.png").size > (600, 300)

    code, out, err = nas("export", run_copy, "--best", "-o", tmp_path / "model", "--json")
    certificate = json.loads(out)
    assert code == 0, err
    best = next(row for row in study["front"] if row["number"] == study["best"])
    assert certificate["key"] == best["key"]
    assert certificate["validation_top1"] == best["metrics"]["top1"]
    assert certificate["max_delta"] <= 1e-5

    arch = json.dumps(best["arch"])
    code, out, _ = nas("export", run_copy, "--arch", arch, "-o", tmp_path / "same", "--json")
    assert code == 0
    assert json.loads(out)["correct"] == certificate["correct"]
    for name in ("model.py", "model.safetensors"):
        assert (tmp_path / "same" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()

    code, _, err = nas("export", run_copy, "--best", "-o", tmp_path / "model")
    assert (code, "is not empty" in err, "--force" in err) == (2, True, True)
    (tmp_path / "model" / "mine.txt").write_text("keep me")
    assert nas("export", run_copy, "--trial", 0, "-o", tmp_path / "model", "--force")[0] == 0
    assert (tmp_path / "model" / "mine.txt").read_text() == "keep me"

    # the same command again finds everything done; with another setting it is another search
    code, out, _ = nas("search", run_copy, "--n-trials", 12, "--num-workers", 0, "--max-macs", "2M", "--seed", 1)
    assert code == 0
    code, _, err = nas("search", run_copy, "--n-trials", 12, "--num-workers", 0, "--max-macs", "1M", "--seed", 2)
    assert code == 2
    assert "limits.macs is 2000000.0 in the study and 1000000.0 now" in err
    assert "seed is 1 in the study and 2 now" in err
    code, _, err = nas("search", run_copy, "--num-workers", 0, "--max-macs", "2M", "--seed", 1, "--lookahead", 4)
    assert code == 2
    assert "lookahead is 8 in the study and 4 now" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows that the evaluator asks for the GPU that is not there")
def test_gpus_are_used_where_asked_for(nas, run_copy):
    code, _, err = nas("search", run_copy, "--num-workers", 0, "--num-gpus", 1)
    assert code == 1
    assert "the evaluator could not be built" in err
    assert "NVIDIA" in err or "CUDA" in err


def test_a_second_study_shares_evaluations_and_has_its_own_picture(nas, run_copy):
    for name in ("default", "other"):
        assert nas("search", run_copy, "--study-name", name, "--n-trials", 4, "--num-workers", 0)[0] == 0
    lines = (run_copy / "evaluations.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert {"front.png", "front-other.png"} <= {f.name for f in run_copy.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--space", "nope", "--data", "digits", "-o", "NEW"],
            "unknown space 'nope'; valid: digits, resnet20",
        ),
        (["train", "--space", "digits", "--data", "nope", "-o", "NEW"], "unknown data set 'nope'"),
        (["train", "--space", "digits", "--data", "folder:none", "-o", "NEW"], "none"),
        (["train", "--space", "digits", "--data", "digits", "-o", "NEW", "--epochs", "0"], "epochs is 0; valid: 1 to"),
        (["train", "--space", "digits", "--data", "digits", "-o", "NEW", "--lr", "-1"], "lr is -1.0"),
        (["train", "--space", "digits", "--data", "digits", "-o", "NEW", "--device", "tpu"], "unknown device 'tpu'"),
        (
            ["train", "--space", "digits", "--data", "digits", "-o", "NEW", "--image-size", "1"],
            "image_size is 1, too small",
        ),
        (["train", "--space", "mine.yaml", "--data", "digits", "-o", "NEW"], "cannot read the space mine.yaml"),
        (["train", "--data", "digits", "-o", "NEW"], "needs a space and a data set"),
        (["train", "--space", "digits", "--data", "digits", "-o", "RUN"], "is not empty; continue that run with --res"),
        (["train", "--space", "digits", "--data", "digits", "--out=-NEW"], "-NEW begins with a '-', as options"),
        (["train", "--space", "digits", "--data", "digits", "-o", "FILE/x"], "run.json is a file; a folder is needed"),
        (["train", "-o", "NEW", "--resume"], "there is no run folder"),
        (["train", "-o", "RUN", "--resume", "--epochs", "9"], "epochs was 3 and is now 9"),
        (["train", "-o", "RUN", "--resume", "--space", "resnet_cifar"], "space was 'digits' and is now 'resnet_cifar'"),
        (["search", "NEW"], "there is no run folder"),
        (["search", "RUN", "--strategy", "magic"], "unknown strategy 'magic'; valid: random, evolution"),
        (["search", "RUN", "--evaluator", "quick"], "unknown evaluator 'quick'; valid: reference, fast"),
        (["search", "RUN", "--evaluator", "reference", "--worker-memory", "1M"], "worker memory is 1e+06; valid: "),
        (["search", "RUN", "--worker-memory", "lots"], "'lots' is not a quantity"),
        (["search", "RUN", "--objective", "accuracy"], "unknown metric 'accuracy'; valid: top1, macs, params"),
        (["search", "RUN", "--max-macs", "lots"], "'lots' is not a quantity"),
        (["search", "RUN", "--max-macs", "-5"], "'-5' is not a quantity"),
        (["search", "RUN", "--evaluation-timeout", "5", "--num-workers", "0"], "an evaluation timeout needs workers"),
        (["search", "RUN", "--study-name", "../x"], "study name '../x' is not valid"),
        (["pareto", "RUN"], "has no study 'default'; studies: none yet"),
        (["export", "RUN", "--best", "-o", "NEW"], "has no study 'default'"),
        (["export", "RUN", "-o", "NEW"], "exactly one of --trial N, --best and --arch JSON"),
        (["export", "RUN", "--best", "--trial", "1", "-o", "NEW"], "exactly one of"),
        (["export", "RUN", "--arch", "{", "-o", "NEW"], "--arch is not JSON"),
        (["export", "RUN", "--arch", '{"depth": [9, 9]}', "-o", "NEW"], "gene 'kernel' is missing"),
        (["export", "RUN", "--arch", "[]", "-o", "NEW"], "an architecture is a mapping"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_named_with_exit_code_2(nas, trained_run, tmp_path, arguments, message):
    before = sorted(f.name for f in trained_run.iterdir())
    paths = {"NEW": str(tmp_path / "new"), "RUN": str(trained_run), "FILE/x": str(trained_run / "run.json/x")}
    code, out, err = nas(*(paths.get(a, a) for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()
    assert sorted(f.name for f in trained_run.iterdir()) == before


def test_export_touches_nothing_but_its_folder(nas, trained_run, tmp_path):
    for name in ("m.partial", "m.failed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("keep me")
    genes = {"depth": [1, 1], "width": [16, 32], "kernel": [3, 3, 3, 3], "pool": [0]}
    assert nas("export", trained_run, "--arch", json.dumps(genes), "-o", tmp_path / "m")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "m.failed", "m.partial"]
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    code, _, err = nas("export", trained_run, "--arch", json.dumps(genes), "-o", tmp_path / "link", "--force")
    assert (code, "is a link to nothing" in err) == (2, True)


def test_export_into_the_current_empty_folder(nas, trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genes = {"depth": [1, 1], "width": [16, 32], "kernel": [3, 3, 3, 3], "pool": [0]}
    assert nas("export", trained_run, "--arch", json.dumps(genes), "-o", ".")[0] == 0
    files = ["README.md", "certificate.json", "config.json", "model.py", "model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_a_picture_that_cannot_be_written_costs_only_the_picture(nas, run_copy, caplog):
    assert nas("search", run_copy, "--num-workers", 0, "--n-trials", 2)[0] == 0
    (run_copy / "front.png").unlink()
    (run_copy / "front.png").mkdir()
    code, out, _ = nas("pareto", run_copy, "--json")
    assert code == 0
    assert json.loads(out)["n_trials"] == 2
    assert "picture could not be written" in caplog.text


def test_a_terminal_without_unicode_gets_the_table(run_copy):
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    search = ["search", str(run_copy), "--num-workers", "0", "--n-trials", "2", "--max-macs", "1M"]
    code = "import sys\nfrom nas import cli\n" + "".join(
        f"sys.argv = {['nas', *arguments]!r}\ntry: cli.main()\nexcept SystemExit as stop: assert not stop.code\n"
        for arguments in (search, ["pareto", str(run_copy)])
    )
    done = light_python(code, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 trials") == 2


def test_the_help_names_every_strategy(nas):
    from nas.strategies import STRATEGIES

    code, out, _ = nas("search", "--help")
    assert code == 0
    assert not [name for name in STRATEGIES if name not in out]

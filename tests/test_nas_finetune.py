"""`nas finetune`: what it records is what the weights do, nothing is trained twice, and nothing worse is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_python
from PIL import Image
from safetensors.torch import load_file

from nas import training
from nas.finetune import finetune_run, parse_trials
from nas.finetune_records import Records, basis_of
from nas.finetune_work import sample_config
from nas.plots import save_finetuning
from nas.run import Run, RunError
from nas.searching import open_study, search_run
from nas.tables import print_finetuning
from search_spaces.plan import plan
from supernet import checkpoint
from supernet.evaluate import count_correct
from supernet.finetune import scored
from supernet.recipe import TrainConfig
from supernet.subnet import Subnet

pytestmark = pytest.mark.usefixtures("ray_address")

ROOT = Path(__file__).parent.parent
TRIALS = (3, 7)
SETTINGS = {"epochs": 2, "samples": 3, "num_workers": 1}
OPTIONS = ["--epochs", 2, "--samples", 3, "--num-workers", 1]


@pytest.fixture(scope="module")
def searched(trained_run, tmp_path_factory):
    """A run with a study of eight trials. Not to be written to."""
    run = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("searched") / "run"))
    search_run(run, n_trials=8, num_workers=0, strategy="random")
    return run


@pytest.fixture(scope="module")
def tuned(searched, tmp_path_factory, ray_address):
    """A run with two fine-tuned trials, made without a test set. Not to be written to."""
    run = Path(shutil.copytree(searched, tmp_path_factory.mktemp("tuned") / "run"))
    load_trained = training.load_trained

    def without_test_set(run):
        supernet, state, data = load_trained(run)
        return supernet, state, replace(data, test=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "load_trained", without_test_set)
        finetune_run(run, TRIALS, **SETTINGS)
    return run


@pytest.fixture
def searched_copy(searched, tmp_path):
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture
def tuned_copy(tuned, tmp_path):
    return Path(shutil.copytree(tuned, tmp_path / "run"))


def folder_of(run):
    return run / "finetune" / "default"


def results(run):
    return json.loads((folder_of(run) / "results.json").read_text())


def recorded(run):
    return [json.loads(line)["candidate"] for line in (folder_of(run) / "samples.jsonl").read_text().splitlines()]


def samples(run):
    """How often each sample was recorded."""
    return Counter((c["trial"], c["epochs"], c["seed"], c["sample"]) for c in recorded(run) if c["sample"] is not None)


def configs(*lrs):
    """In the place of `sample_config`: these learning rates, one a sample."""
    return lambda recipe, seed, sample: {"lr": lrs[sample], "weight_decay": 1e-4}


def test_the_results_are_what_the_kept_weights_do(tuned):
    _, _, data = training.load_trained(Run.open(tuned))
    report, study = results(tuned), open_study(tuned)
    assert [row["trial"] for row in report["trials"]] == list(TRIALS)
    for row in report["trials"]:
        arch = study.trials[row["trial"]].arch
        tensors, _ = checkpoint.load(folder_of(tuned) / row["file"])
        subnet = Subnet(plan(Run.open(tuned).space, arch)).eval()
        subnet.load_state_dict(tensors)
        assert count_correct(subnet, data.validation, data.mean, data.std) / len(data.validation) == row["top1"]
        assert checkpoint.weights_hash(tensors) == row["weights_sha256"]
        assert row["inherited"] == row["inherited_in_study"] == study.trials[row["trial"]].metrics["top1"]
        assert row["n_samples"] == len(row["samples"]) == 3
        assert row["finetuned"] == max(sample["top1"] for sample in row["samples"])
        assert row["top1"] == max(row["inherited"], row["finetuned"])
        assert row["kept"] == ("finetuned" if row["finetuned"] > row["inherited"] else "inherited")
    assert samples(tuned) == {(trial, 2, 0, sample): 1 for trial in TRIALS for sample in range(3)}
    assert sorted(f.name for f in folder_of(tuned).iterdir()) == [
        "3.safetensors", "7.safetensors", "results.json", "samples.jsonl",
    ]  # fmt: skip


def test_fine_tuning_improves_a_supernet_that_was_trained_for_three_epochs(tuned):
    assert [row["kept"] for row in results(tuned)["trials"]] == ["finetuned"] * len(TRIALS)


def test_what_is_sampled_follows_from_the_seed_alone(tuned):
    recipe = Run.open(tuned).recipe
    for c in recorded(tuned):
        if c["sample"] is not None:
            assert {"lr": c["lr"], "weight_decay": c["weight_decay"]} == sample_config(recipe, 0, c["sample"])
    drawn = [sample_config(TrainConfig(lr=0.1, weight_decay=0.0), 1, n) for n in range(400)]
    lr, decay = (np.log10([config[name] for config in drawn]) for name in ("lr", "weight_decay"))
    for logarithms, low, high in ((lr, -3, -1), (decay, -5, -3)):
        counts, _ = np.histogram(logarithms, bins=4, range=(low, high))
        assert counts.sum() == 400
        assert counts.min() > 70


def test_a_learning_rate_that_is_far_too_high_loses_or_diverges(searched_copy, monkeypatch):
    """One worker, so that the good one has set the mark when the bad ones come."""
    monkeypatch.setattr("nas.finetune.sample_config", configs(0.02, 1e30, 30.0))
    report = finetune_run(searched_copy, [3], epochs=2, samples=3, num_workers=1)
    good, diverged, bad = report["trials"][0]["samples"]
    assert (good["state"], diverged["state"], bad["state"]) == ("finished", "diverged", "stopped")
    assert "not finite" in diverged["error"]
    assert bad["correct"][0] < good["correct"][0]
    assert report["trials"][0]["lr"] == 0.02
    assert (report["trials"][0]["n_stopped"], report["trials"][0]["n_diverged"]) == (1, 1)


def test_inherited_weights_are_kept_where_fine_tuning_harms(nas, searched_copy, monkeypatch, tmp_path):
    monkeypatch.setattr("nas.finetune.sample_config", configs(100.0, 1e30))
    options = ["--epochs", 1, "--samples", 2, "--num-workers", 1]
    code, out, err = nas("finetune", searched_copy, "--trials", 7, *options)
    assert code == 0, err
    assert "fine-tuning did not improve, and the inherited weights are kept: 7" in out
    row = results(searched_copy)["trials"][0]
    assert row["kept"] == "inherited"
    assert row["finetuned"] < row["inherited"] == row["top1"]
    run = Run.open(searched_copy)
    supernet, _, data = training.load_trained(run)
    ready, _ = scored(supernet.export(open_study(run).trials[7].arch), data)
    tensors, _ = checkpoint.load(folder_of(searched_copy) / "7.safetensors")
    assert all(torch.equal(tensors[name], t) for name, t in ready.state_dict().items())

    code, _, err = nas("export", searched_copy, "--trial", 7, "--finetuned", "-o", tmp_path / "tuned")
    assert code == 0, err
    written = load_file(tmp_path / "tuned" / "model.safetensors")
    assert all(torch.equal(written[name], t) for name, t in tensors.items())
    assert "fine-tuning was tried and did\nnot improve" in (tmp_path / "tuned" / "README.md").read_text()


def test_export_writes_the_fine_tuned_weights_and_says_so(nas, tuned, tmp_path):
    row = results(tuned)["trials"][0]
    code, out, err = nas("export", tuned, "--trial", 3, "--finetuned", "-o", tmp_path / "model", "--json")
    assert code == 0, err
    certificate = json.loads(out)
    assert certificate["validation_top1"] == row["top1"]
    assert certificate["max_delta"] <= 1e-5
    expected = {name: row[name] for name in ("trial", "kept", "top1", "lr", "weight_decay", "weights_sha256")}
    assert certificate["finetuned"].items() >= (expected | {"inherited_top1": row["inherited"], "samples": 3}).items()
    written, kept = load_file(tmp_path / "model" / "model.safetensors"), checkpoint.load(folder_of(tuned) / row["file"])
    assert written.keys() == kept[0].keys()
    assert all(torch.equal(written[name], kept[0][name]) for name in written)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| Fine-tuning | 2 epochs from the inherited weights, learning rate" in card
    assert "were fine-tuned from the supernet's" in card
    code, _, err = nas("export", tuned, "--trial", 0, "--finetuned", "-o", tmp_path / "other")
    assert (code, "fine-tuned trials: 3, 7; fine-tune it with: nas finetune" in err) == (2, True), err
    assert not (tmp_path / "other").exists()


def test_the_command_again_trains_nothing_and_prints_table_picture_and_json(nas, tuned_copy, monkeypatch):
    monkeypatch.setattr("workers.ray_tune.run_on_tune", None)
    before = recorded(tuned_copy)
    code, out, err = nas("finetune", tuned_copy, "--trials", "3,7", *OPTIONS)
    assert code == 0, err
    assert "the best of all samples by" in out
    assert f"next: nas export {tuned_copy} --trial " in err
    assert Image.open(folder_of(tuned_copy) / "finetune.png").size > (600, 200)
    code, out, _ = nas("finetune", tuned_copy, "--trials", "3,7", *OPTIONS, "--json")
    assert json.loads(out) == results(tuned_copy)
    assert recorded(tuned_copy) == before


def interrupted(run, ray_address, number):
    """Sends the command this signal when the first sample has ended; gives exit code and stderr."""
    terminal = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from nas import cli; cli.main()"
    )
    command = [warm_python.python(), "-c", terminal, "finetune", run, "--trials", "3,7", *OPTIONS]
    environment = os.environ | {"RAY_ADDRESS": ray_address}
    process = subprocess.Popen(map(str, command), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    lines = folder_of(run) / "samples.jsonl"
    while not lines.exists() or len(lines.read_bytes().splitlines()) <= len(TRIALS):  # the first are the inherited
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_ctrl_c_keeps_what_ended_and_the_command_again_adds_what_is_missing(searched_copy, ray_address):
    code, err = interrupted(searched_copy, ray_address, signal.SIGINT)
    assert code == 130, err
    assert f"the same command continues: nas finetune {searched_copy} --trials 3,7 --epochs 2 --samples 3" in err
    assert "Traceback" not in err
    assert not (folder_of(searched_copy) / "ray_tune").exists()
    first, done, seen = recorded(searched_copy), len(samples(searched_copy)), []
    assert 1 <= done < 6
    assert sum(row["n_samples"] for row in results(searched_copy)["trials"]) == done
    report = finetune_run(searched_copy, TRIALS, **SETTINGS | {"samples": 4}, on_progress=seen.append)
    assert (seen[0]["samples"], seen[0]["epochs"]) == (done, 2 * done)
    assert (seen[-1]["samples"], seen[-1]["epochs"]) == (8, 16)
    assert recorded(searched_copy)[: len(first)] == first
    assert samples(searched_copy) == {(trial, 2, 0, sample): 1 for trial in TRIALS for sample in range(4)}
    assert [row["n_samples"] for row in report["trials"]] == [4, 4]


def test_a_killed_driver_loses_only_what_was_under_way(searched_copy, ray_address):
    assert interrupted(searched_copy, ray_address, signal.SIGKILL)[0] == -signal.SIGKILL
    lines = folder_of(searched_copy) / "samples.jsonl"
    before = lines.read_text()
    with lines.open("a") as file:
        file.write('{"format": "nas-finetune-1", "wei')  # torn, as by a kill in the middle of a write
    finetune_run(searched_copy, TRIALS, **SETTINGS)
    after = lines.read_text()
    assert after.startswith(before)
    lines.write_text("".join(line + "\n" for line in after.splitlines() if line.endswith("}")))
    counts = Counter((c["trial"], c["sample"]) for c in recorded(searched_copy))
    assert counts == {(trial, sample): 1 for trial in TRIALS for sample in (None, 0, 1, 2)}


def test_changed_weights_are_not_exported(nas, tuned_copy, tmp_path):
    file = folder_of(tuned_copy) / "3.safetensors"
    tensors, state = checkpoint.load(file)
    checkpoint.save(file, {name: t + 1 for name, t in tensors.items()}, state)
    code, _, err = nas("export", tuned_copy, "--trial", 3, "--finetuned", "-o", tmp_path / "model")
    assert (code, "3.safetensors is not as it was written" in err) == (2, True), err


def test_what_came_from_other_weights_does_not_count(nas, tuned_copy, tmp_path):
    tensors, state = checkpoint.load(tuned_copy / "checkpoint.safetensors")
    tensors = {name: t * 1.5 if name.startswith("model.head") else t for name, t in tensors.items()}
    state["weights_hash"] = checkpoint.weights_hash(checkpoint.select(tensors, "model"))
    checkpoint.save(tuned_copy / "checkpoint.safetensors", tensors, state)
    code, _, err = nas("export", tuned_copy, "--trial", 3, "--finetuned", "-o", tmp_path / "model")
    assert (code, "belongs to other weights than the supernet has now" in err) == (2, True), err
    others = Records(Run.open(tuned_copy), "default", basis_of(Run.open(tuned_copy), state))
    assert (others.trials(), others.others) == ([], len(recorded(tuned_copy)))


@pytest.mark.parametrize(("n_samples", "text"), [(0, "not yet"), (2, "diverged")])
def test_a_trial_without_any_accuracy_is_shown_as_such(tuned, tmp_path, capsys, n_samples, text):
    row = results(tuned)["trials"][0] | {"finetuned": None, "kept": "inherited", "n_samples": n_samples, "samples": []}
    report = {"trials": [row]}
    print_finetuning(report)
    out = capsys.readouterr().out
    assert text in out
    assert ("inherited weights are kept: 3" in out) == (n_samples > 0)
    save_finetuning(report, tmp_path / "picture.png", "no accuracy")
    assert (tmp_path / "picture.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "9"], "study 'default' has no trial 9; valid: 0 to 7"),
        (["--trials", "3,-1"], "study 'default' has no trial -1; valid: 0 to 7"),
        (["--trials", "3,5,3"], "trial 3 was given twice"),
        (["--trials", ""], "trials is ''; write numbers separated by commas"),
        (["--trials", "best"], "trials is 'best'; write numbers separated by commas, such as 3,7,9"),
        (["--trials", "3", "--epochs", 0], "epochs is 0; valid: at least 1"),
        (["--trials", "3", "--samples", 0], "samples is 0; valid: at least 1"),
        (["--trials", "3", "--seed", -1], "seed is -1; valid: 0 to 4294967296"),
        (["--trials", "3", "--num-workers", 0], "num_workers is 0; valid: at least 1"),
        (["--trials", "3", "--num-cpus", 0], "num_cpus is 0.0; it must be positive"),
        (["--trials", "3", "--num-gpus", -1], "num_gpus is -1.0; valid: at least 0"),
        (["--trials", "3", "--num-gpus", 1], "device 'cuda' is not available on this machine"),
        (["--trials", "3", "--study-name", "x"], "has no study 'x'; studies: default"),
    ],
)
def test_bad_options_are_refused(nas, searched, monkeypatch, options, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = nas("finetune", searched, *options)
    assert (code, message in err) == (2, True), err
    assert not (searched / "finetune").exists()


def test_bad_trials_are_refused_before_torch_or_ray_are_imported(searched):
    code = (
        f"import sys\nsys.argv = ['nas', 'finetune', {str(searched)!r}, '--trials', '3,99']\nfrom nas import cli\n"
        "try: cli.main()\nexcept SystemExit as stop: print(stop.code, {'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "2 set()\n", done.stderr


def test_failed_and_infeasible_trials_are_refused(searched, monkeypatch):
    study = open_study(searched)
    failed = replace(study.trials[3], state="failed", error="ValueError: no")
    over = replace(study.trials[4], constraints={"macs": 0.5})
    trials = [failed if t.number == 3 else over if t.number == 4 else t for t in study.trials]
    monkeypatch.setattr("nas.finetune.open_study", lambda run, name: replace(study, trials=trials))
    with pytest.raises(RunError, match=r"trial 3 of study 'default' failed \(ValueError: no\); its front: \d"):
        finetune_run(searched, [3])
    with pytest.raises(RunError, match=r"trial 4 of study 'default' is over its limit on macs; its front: \d"):
        finetune_run(searched, [4])
    with pytest.raises(RunError, match="no trial to fine-tune was given"):
        finetune_run(searched, [])
    assert parse_trials("3, 7,9") == [3, 7, 9]

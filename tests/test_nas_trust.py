"""`nas trust`: what is kept, what is never done twice, and what is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.stats
import torch
import warm_python
from PIL import Image
from safetensors.torch import load_file, save_file
from trusts import N, report_of

from nas import export_subnet
from nas.calibrations import load_calibration
from nas.cli_trust import _advice
from nas.run import Run, RunError
from nas.searching import search_run
from nas.training import Interrupted, train
from nas.trust import _file, quote, sample_of, trust_run
from nas.trust_report import quoted_text
from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from supernet import checkpoint
from supernet.recipe import TrainConfig
from supernet.train import TrainingError

ROOT = Path(__file__).parent.parent

DIGITS = catalog.get("digits")


def trainings(run):
    """Contents of the stand-alone records, which hold the seconds that each took."""
    return {file.name: file.read_text() for file in (run / "trust").rglob("*.json")}


def train_further(run):
    """Other weights in the checkpoint, as after more training."""
    tensors, state = checkpoint.load(run / "checkpoint.safetensors")
    tensors = {name: t * 1.01 if name.startswith("model.head") else t for name, t in tensors.items()}
    state["weights_hash"] = checkpoint.weights_hash(checkpoint.select(tensors, "model"))
    checkpoint.save(run / "checkpoint.safetensors", tensors, state)
    return state["weights_hash"]


def test_the_figures_are_scipys_on_the_pairs(trusted):
    report = report_of(trusted)
    rows = report["archs"]
    inherited, standalone, macs = ([row[n] for row in rows] for n in ("inherited", "standalone", "macs"))
    expected = scipy.stats.kendalltau(inherited, standalone).statistic
    assert report["kendall"]["value"] == pytest.approx(expected, abs=1e-12)
    assert report["null_kendall"]["value"] == pytest.approx(scipy.stats.kendalltau(macs, standalone)[0], abs=1e-12)
    assert report["spearman"]["value"] == pytest.approx(scipy.stats.spearmanr(inherited, standalone)[0], abs=1e-12)
    gaps = [row["standalone"] - row["inherited"] for row in rows]
    assert sum(b["n"] for b in report["bins"]) == report["n"] == len(rows) == N
    assert sum(b["n"] * b["gap_mean"] for b in report["bins"]) == pytest.approx(sum(gaps))
    assert [b["macs_min"] for b in report["bins"]] == sorted(b["macs_min"] for b in report["bins"])

    weights = report["weights"]
    quoted = quote(Run.open(trusted), weights)
    assert quoted == {
        "kendall": report["kendall"]["value"],
        "kendall_interval": report["kendall"]["interval"],
        "spearman": report["spearman"]["value"],
        "spearman_interval": report["spearman"]["interval"],
        "null_kendall": report["null_kendall"]["value"],
        "n": N,
        "epochs": 1,
        "max_macs": None,
    }
    assert quote(Run.open(trusted), "0" * 64) is None


def test_inherited_accuracy_is_the_searchs_own(trusted_copy):
    rows = {row["key"]: row["inherited"] for row in report_of(trusted_copy)["archs"]}
    study = search_run(trusted_copy, n_trials=40, num_workers=0, strategy="random")
    shared = [trial for trial in study.trials if trial.arch.key in rows]
    lines = [json.loads(line) for line in (trusted_copy / "evaluations.jsonl").read_text().splitlines()]
    assert len(lines) == len(rows) + len(study.trials) - len(shared)
    assert {line["key"]: line["metrics"]["top1"] for line in lines}.items() >= rows.items()
    assert all(t.worker == "cache" and t.metrics["top1"] == rows[t.arch.key] for t in shared)


def test_more_archs_extend_the_sample_and_nothing_is_trained_twice(trusted_copy, trained_run, tmp_path):
    before, shorter = trainings(trusted_copy), report_of(trusted_copy)
    starts = []
    longer = trust_run(trusted_copy, archs=N + 2, epochs=1, device="cpu", on_start=lambda *steps: starts.append(steps))
    assert longer["archs"][:N] == shorter["archs"]
    assert trainings(trusted_copy).items() >= before.items()
    assert len(trainings(trusted_copy)) == N + 2
    done, total = starts[0]
    assert done * (N + 2) == total * N
    at_once = Path(shutil.copytree(trained_run, tmp_path / "at_once"))
    assert trust_run(at_once, archs=N + 2, epochs=1, device="cpu") == longer
    assert trust_run(trusted_copy, archs=N + 2, epochs=1, device="cpu") == longer
    assert (at_once / "calibration.json").read_text() == (trusted_copy / "calibration.json").read_text()


def test_a_sample_below_a_limit_shares_its_trainings_and_is_quoted_as_such(nas, trusted_copy, caplog):
    limit, before = 2_000_000, trainings(trusted_copy)
    code, out, err = nas("trust", trusted_copy, "--archs", N, "--epochs", 1, "--max-macs", "2M")
    assert code == 0, err
    report = report_of(trusted_copy)
    assert report["max_macs"] == limit
    assert max(row["macs"] for row in report["archs"]) <= limit
    assert trainings(trusted_copy).items() >= before.items()
    assert f"{N} architectures of at most 2M MACs" in out
    assert "intervals of fewer than 8 architectures are too narrow; --archs takes more" in out
    assert f"the report on {N} architectures gives way to one on {N} architectures of at most 2M MACs;" in caplog.text
    assert f"{N} subnets of at most 2M MACs" in quoted_text(quote(Run.open(trusted_copy), report["weights"]))
    with pytest.raises(RunError, match=rf"nas trust \S+ --archs {N} --epochs 1 --seed 0 --max-macs {limit} \("):
        load_calibration(Run.open(trusted_copy), "0" * 64)
    both = trainings(trusted_copy)
    assert trust_run(trusted_copy, archs=N, epochs=1, max_macs=limit) == report
    assert trust_run(trusted_copy, archs=N, epochs=1)["max_macs"] is None
    assert trainings(trusted_copy) == both


def test_a_stopped_run_keeps_what_it_finished(run_copy, trusted):
    seen = []
    with pytest.raises(Interrupted, match=r"stopped with 2 of 4 .* nas trust .* --archs 4 --epochs 1 --seed 0"):
        trust_run(
            run_copy, archs=N, epochs=1, device="cpu", on_record=seen.append,
            should_stop=lambda: len(trainings(run_copy)) == 2,
        )  # fmt: skip
    before = trainings(run_copy)
    assert {record["arch"] for record in seen} == {0, 1}
    assert not (run_copy / "trust.json").exists()
    trust_run(run_copy, archs=N, epochs=1, device="cpu")
    assert trainings(run_copy).items() >= before.items()
    assert report_of(run_copy) == report_of(trusted)


def test_sigint_in_the_middle_ends_as_no_interruption_would(run_copy, trusted):
    command = [warm_python.python(), "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
               "from nas import cli; cli.main()", "trust", str(run_copy), "--archs", str(N), "--epochs", "1",
               "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    while not trainings(run_copy):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"of 4 architectures trained; the same command continues: nas trust" in err
    trust_run(run_copy, archs=N, epochs=1, device="cpu")
    assert report_of(run_copy) == report_of(trusted)


def test_other_weights_need_new_scores_but_no_new_trainings(trusted_copy, caplog):
    before, old = trainings(trusted_copy), report_of(trusted_copy)
    weights = train_further(trusted_copy)
    assert quote(Run.open(trusted_copy), weights) is None
    with pytest.raises(RunError, match=r"belongs to other weights .* make it again with: nas trust"):
        search_run(trusted_copy, n_trials=2, num_workers=0, score="calibrated")
    report = trust_run(trusted_copy, archs=N, epochs=1, device="cpu")
    assert "the last report of" in caplog.text
    assert trainings(trusted_copy) == before
    assert report["weights"] == weights
    assert [row["standalone"] for row in report["archs"]] == [row["standalone"] for row in old["archs"]]
    assert search_run(trusted_copy, n_trials=2, num_workers=0, score="calibrated").trials


def test_other_epochs_start_anew_and_say_so(trusted_copy, caplog):
    trust_run(trusted_copy, archs=N, epochs=1, seed=1, device="cpu")
    assert "stand-alone trainings of epochs1-seed0; those of epochs1-seed1 start anew" in caplog.text
    counts = [len(list(folder.iterdir())) for folder in sorted((trusted_copy / "trust").iterdir())]
    assert counts == [N, N]
    assert report_of(trusted_copy)["seed"] == 1


def test_the_command_prints_a_table_a_picture_and_json(nas, trusted_copy):
    code, out, err = nas("trust", trusted_copy, "--archs", N, "--epochs", 1)
    assert code == 0, err
    assert "MACs alone (the null)" in out
    assert f"{N} architectures, each trained alone for 1 epoch" in out
    assert "next: " in err
    assert Image.open(trusted_copy / "trust.png").size > (600, 300)
    code, out, _ = nas("trust", trusted_copy, "--archs", N, "--epochs", 1, "--json")
    assert json.loads(out) == report_of(trusted_copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--archs", 3], "archs is 3; valid: at least 4"),
        (["--archs", 100_000], "archs is 100000; valid in space 'digits': 4 to 1080"),
        (["--epochs", 0], "epochs is 0; valid: at least 1"),
        (["--seed", -1], "seed is -1"),
        (["--max-macs", "10k"], "no architecture meets the limits: macs ≤ 10k (nearest reachable: "),
        (["--max-macs", "0"], "max_macs is 0.0; valid: above 0"),
        (["--max-macs", "few"], "'few' is not a quantity"),
        (["--seed", 2**64], "seed is 18446744073709551616; valid: 0 to 4294967296"),
        (["--device", "tpu"], "unknown device 'tpu'; valid: auto, cpu, cuda"),
    ],
)
def test_bad_options_are_refused(nas, run_copy, options, message):
    code, _, err = nas("trust", run_copy, "--epochs", 1, *options)
    assert (code, message in err) == (2, True), err
    assert not (run_copy / "trust.json").exists()


def test_a_changed_record_is_named(trusted_copy):
    file = sorted((trusted_copy / "trust").rglob("*.json"))[0]
    good = json.loads(file.read_text())
    for change in ({"epochs": 2}, {"correct": "00"}, {"correct": 3}, {"images": 7}, {"arch": None}):
        file.write_text(json.dumps(good | change))
        with pytest.raises(RunError, match=f"{file.name} is not as it was written"):
            trust_run(trusted_copy, archs=N, epochs=1, device="cpu")
    file.write_text("{")
    with pytest.raises(RunError, match="remove it to train it again"):
        trust_run(trusted_copy, archs=N, epochs=1, device="cpu")


def test_the_default_does_not_exceed_what_there_is():
    few = NetworkSpace("few", (Stage((1, 2), (4, 8), (3,)),), 0, 1, 8, 10)
    assert len(sample_of(few, None, 0, None)) == few.size() == 4
    assert len(sample_of(DIGITS, None, 0, 538_080)) == 8
    assert len(sample_of(DIGITS, None, 0, None)) == 12


@pytest.mark.parametrize(
    ("archs", "max_macs", "message"),
    [
        (3, None, "archs is 3; valid: at least 4"),
        (5000, None, r"archs is 5000; valid in space 'digits': 4 to 1080"),
        (12, 538_080, "archs is 12; valid in space 'digits' within 538,080 MACs: 4 to 8"),
        (12, 443_712, "space 'digits' within 443,712 MACs has 3 architectures; trust needs 4 to compare"),
        (None, 443_712, "space 'digits' within 443,712 MACs has 3 architectures; trust needs 4 to compare"),
    ],
)
def test_a_number_that_is_named_as_valid_is(archs, max_macs, message):
    with pytest.raises(ValueError, match=message):
        sample_of(DIGITS, archs, 0, max_macs)


def test_a_picture_that_cannot_be_written_costs_nothing_but_the_picture(nas, trusted_copy, caplog):
    (trusted_copy / "trust.png").unlink(missing_ok=True)
    (trusted_copy / "trust.png").mkdir()
    report = json.loads((trusted_copy / "trust.json").read_text())
    code, out, err = nas("trust", trusted_copy, "--archs", report["n"], "--epochs", report["epochs"], "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == report["n"]
    assert "the picture could not be written" in caplog.text


def test_networks_alone_learn_from_the_outside_teacher_too_and_no_other_takes_its_place(trained_run, tmp_path):
    space, teacher = Run.open(trained_run).space, tmp_path / "teacher"
    export_subnet(Run.open(trained_run), space.largest(), teacher)
    recipe = {"epochs": 1, "batch_size": 256, "teacher": str(teacher), "seed": 0}
    taught = train("digits", "digits", tmp_path / "taught", **recipe, device="cpu")
    plain = train("digits", "digits", tmp_path / "plain", **recipe | {"teacher": None}, device="cpu")
    accuracies = [
        [pair["standalone"] for pair in trust_run(run, archs=N, epochs=1, device="cpu")["archs"]]
        for run in (taught, plain)
    ]
    assert accuracies[0] != accuracies[1]
    weights = load_file(teacher / "model.safetensors")
    save_file(weights | {"head.fc.bias": weights["head.fc.bias"] + 1}, teacher / "model.safetensors")
    with pytest.raises(RunError, match=r"teacher .* is not the one that .*taught was trained with"):
        trust_run(taught, archs=N, epochs=1, device="cpu")


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: report.pop("kendall"),
        lambda report: report["kendall"].update(interval=[None, None]),
        lambda report: report["kendall"].update(value=7),
        lambda report: report["spearman"].update(interval="x"),
        lambda report: report.update(null_kendall=None),
        lambda report: report.update(n="many"),
    ],
)
def test_a_changed_report_is_never_quoted_and_export_says_so_before_it_reads_the_test_set(
    trusted_copy, damage, monkeypatch, tmp_path
):
    report = report_of(trusted_copy)
    damage(report)
    (trusted_copy / "trust.json").write_text(json.dumps(report))
    run = Run.open(trusted_copy)
    monkeypatch.setattr("supernet.evaluate.count_correct", None)
    with pytest.raises(RunError, match=rf"trust.json is not as it was written .* --archs {N} --epochs 1 --seed 0"):
        export_subnet(run, run.space.smallest(), tmp_path / "model")


POOLED = NetworkSpace("pooled", (Stage((1, 2), (4, 8)),), 1, 1, 8, 10)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Trained with the largest at drawn poolings. Not to be written to."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    return train(POOLED, "digits", folder, epochs=1, batch_size=360, step_plan="sandwich", max_pooling="shared")


def test_the_largest_is_trained_alone_as_such_at_every_pooling_at_which_the_supernet_does(
    shared, tmp_path, monkeypatch
):
    """With its dropout, that is; a training of before this was so is done again."""
    run = Run.open(shutil.copytree(shared.path, tmp_path / "run"))
    largest = [POOLED.with_pools(POOLED.largest(), [slot]) for slot in (0, 1)]
    assert POOLED.largest() in largest
    trust_run(run, archs=6, epochs=1, device="cpu")
    records = {file.name: json.loads(file.read_text()) for file in (run.path / "trust").rglob("*.json")}
    assert [name for name, record in records.items() if record["largest"]] == [
        f"{arch.key}.json" for arch in largest if f"{arch.key}.json" in records
    ]
    assert {f"{arch.key}.json" for arch in largest} <= records.keys()
    before = trainings(run.path)
    for file in (run.path / "trust").rglob("*.json"):
        record = json.loads(file.read_text())
        del record["largest"]
        file.write_text(json.dumps(record))
    trust_run(run, archs=6, epochs=1, device="cpu")
    again = {name for name, text in trainings(run.path).items() if "largest" in text}
    assert again == {f"{arch.key}.json" for arch in largest if arch != POOLED.largest()}
    assert all(
        json.loads(trainings(run.path)[name])["correct"] == json.loads(before[name])["correct"] for name in again
    )


def test_a_network_alone_that_computes_no_numbers_is_no_accuracy(trusted_copy, monkeypatch):
    """As a search refuses it: highest of no numbers is the first class."""
    monkeypatch.setattr(
        "supernet.evaluate.predict", lambda subnet, images, mean, std: torch.full((len(images), 10), math.nan)
    )
    with pytest.raises(TrainingError, match=r"^architecture 1 of 4, \S+: the network computes no finite numbers"):
        trust_run(trusted_copy, archs=4, epochs=1, seed=9, device="cpu")


def test_names_of_records_fit_a_file_system(trusted):
    space = NetworkSpace("deep", (Stage((80,), (8,), (3, 5), (0.25, 0.5), "bottleneck"),), 0)
    arch = space.largest()
    assert len(arch.key) > 255
    first, second = (_file(trusted, a).name for a in (arch, space.smallest()))
    assert first != second
    assert max(len(first), len(second)) < 255


def test_a_space_too_small_to_compare_is_refused(trusted_copy, monkeypatch):
    monkeypatch.setattr(Run, "space", NetworkSpace("two", (Stage((1, 2), (8,)),), 0, 1, 8))
    with pytest.raises(ValueError, match="space 'two' has 2 architectures; trust needs 4"):
        trust_run(trusted_copy)


def test_fewer_architectures_than_before_are_told_apart(trusted_copy, caplog):
    trust_run(trusted_copy, archs=N + 1, epochs=1, device="cpu")
    caplog.clear()
    trust_run(trusted_copy, archs=N, epochs=1, device="cpu")
    assert f"the report on {N + 1} architectures gives way to one on {N} architectures; " in caplog.text
    assert f"nas trust {trusted_copy} --archs {N + 1} --epochs 1 --seed 0 brings it back" in caplog.text


def test_more_architectures_are_advised_where_there_are_more():
    report = {"n": 6, "max_macs": None, "archs": [], "kendall": {"value": 0.2}, "null_kendall": {"value": 0.5}}
    report["calibration"] = {"leave_pairs_out_kendall": None}
    run = SimpleNamespace(space=SimpleNamespace(size=lambda: 6), recipe=TrainConfig(epochs=4))
    longer = "nas train as for RUN, with more than --epochs 4 and another -o"
    assert _advice("RUN", report, run) == f"{longer}: MACs alone rank as well"
    assert (
        _advice("RUN", report | {"n": 5}, run)
        == f"{longer}, or nas trust RUN with more --archs: MACs alone rank as well"
    )

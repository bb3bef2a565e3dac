"""Runs on data and spaces of the user's own: what is recorded, and that nothing else is needed afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from nas.data_options import DataOptions
from nas.export import export_subnet
from nas.run import Run
from nas.searching import search_run
from nas.training import Interrupted, load_trained, train

DATA = """
import os
import numpy as np

def make():
    with open("PIDS", "a") as file:
        file.write(f"{os.getpid()}\\n")
    images = np.random.default_rng(SEED).integers(0, 256, (60, SIZE, SIZE, CHANNELS), dtype=np.uint8)
    return {"images": images, "labels": np.arange(60) % 3, "classes": ["cat", "dog", "owl"]}
"""
SPACE = """
from search_spaces.network import NetworkSpace, Stage

def make(in_channels, image_size, num_classes):
    stages = (Stage((1, 2), (4, 8), (1, 3)), Stage((1,), (8,), stride=2))
    stem = "imagenet_stem" if image_size >= 224 else "stem"
    return NetworkSpace("mine", stages, 1, in_channels, image_size, num_classes, stem=stem)
"""


def write(folder, size=8, channels=1, seed=0):
    values = {"PIDS": folder / "pids", "SEED": seed, "SIZE": size, "CHANNELS": channels}
    text = DATA
    for name, value in values.items():
        text = text.replace(name, str(value))
    (folder / "data.py").write_text(text)
    (folder / "space.py").write_text(SPACE)


OWN = ["--space", "space.py:make", "--data", "data.py:make", "--epochs", 1, "--batch-size", 16]


@pytest.fixture
def own_run(nas, tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = nas("train", *OWN, "-o", "run")
    assert code == 0, err
    return tmp_path / "run"


def test_a_run_on_functions_is_reopened_from_anywhere_without_the_space(nas, own_run, tmp_path, monkeypatch):
    description = json.loads((own_run / "run.json").read_text())
    assert description["data"]["spec"] == f"{tmp_path / 'data.py'}:make"
    assert description["classes"] == ["cat", "dog", "owl"]
    assert Run.open(own_run).data.name == "data.py:make"
    (tmp_path / "space.py").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert nas("search", own_run, "--n-trials", 2, "--num-workers", 0)[0] == 0
    code, _, err = nas("export", own_run, "--best", "-o", "model")
    assert code == 0, err
    assert json.loads((tmp_path / "elsewhere" / "model" / "config.json").read_text())["label_names"][2] == "owl"


def test_what_the_function_returns_must_stay_what_it_was(nas, own_run, tmp_path):
    write(tmp_path, seed=1)
    code, _, err = nas("search", own_run, "--n-trials", 2, "--num-workers", 0)
    assert code == 2
    assert f"the data set {tmp_path / 'data.py'}:make is not what" in err
    (tmp_path / "data.py").unlink()
    code, _, err = nas("search", own_run, "--n-trials", 2, "--num-workers", 0)
    assert code == 2
    assert f"there is no file {tmp_path / 'data.py'}" in err


def test_workers_get_the_images_and_never_call_the_function(own_run, tmp_path, ray_address):
    (tmp_path / "pids").unlink()
    study = search_run(own_run, n_trials=3, num_workers=2, address=ray_address)
    assert {trial.state for trial in study.trials} == {"complete"}
    assert {trial.worker for trial in study.trials} - {None}
    assert (tmp_path / "pids").read_text().split() == [str(os.getpid())]


def test_counts_of_the_classes_are_said_before_training(nas, tmp_path, monkeypatch, caplog):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert nas("train", *OWN, "-o", "run")[0] == 0
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert said == (
        f"{tmp_path / 'data.py'}:make: 40 training images of 3 classes, 12 ('cat') to 14 ('dog'); "
        "4 calibration, 4 search-validation and 12 test images"
    )


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 48), (4, 224)])
def test_images_of_any_channels_and_size_go_through_the_whole_chain(channels, size, nas, tmp_path, monkeypatch):
    write(tmp_path, size, channels)
    monkeypatch.chdir(tmp_path)
    assert nas("train", *OWN, "-o", "run")[0] == 0
    assert nas("search", "run", "--n-trials", 2, "--num-workers", 0)[0] == 0
    code, out, err = nas("export", "run", "--best", "-o", "model", "--json")
    assert code == 0, err
    assert json.loads(out)["max_delta"] <= 1e-5
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [channels, size, size]


@pytest.mark.parametrize(
    ("spec", "absolute", "name", "place"),
    [
        ("digits", "digits", "digits", None),
        ("folder:photos", "folder:HERE/photos", "folder", "HERE/photos"),
        ("a:b/x.py:make", "a:HERE/b/x.py:make", "a", "HERE/b/x.py:make"),
        ("sub/x.py:make", "HERE/sub/x.py:make", "x.py:make", "HERE/sub/x.py"),
        ("my.data:make", "my.data:make", "my.data:make", None),
    ],
)
def test_places_in_a_data_spec_are_made_absolute(spec, absolute, name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = DataOptions(spec)
    assert options.spec == absolute.replace("HERE", str(tmp_path))
    assert options.name == name
    assert options.place is None if place is None else str(options.place) == place.replace("HERE", str(tmp_path))
    assert DataOptions(options.spec) == options


@pytest.fixture
def model(exported, tmp_path, monkeypatch):
    """An exported model of the digits space, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(exported, tmp_path / "model")


START = ["--space", "digits", "--epochs", 1, "--batch-size", 64, "--init-from", "model"]


def test_a_training_that_starts_from_a_model_records_it_and_resumes_bit_for_bit(nas, model, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, _, err = nas("train", *START, "--data", "digits", "-o", whole)
    assert code == 0, err
    start = json.loads((whole / "run.json").read_text())["init_from"]
    assert (start["folder"], start["classifier"]) == (str(model), "kept")
    assert start["arch"] == json.loads((model / "config.json").read_text())["arch"]
    export_subnet(whole, Run.open(whole).space.smallest(), tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["init_from"] == {"weights": start["weights"], "classifier": "kept"}
    assert f"`{start['weights'][:16]}`, classifier kept" in (tmp_path / "exported" / "README.md").read_text()
    stopped = iter([False] * 3 + [True] * 99)
    with pytest.raises(Interrupted):
        train("digits", "digits", parts, init_from="model", epochs=1, batch_size=64, should_stop=lambda: next(stopped))
    shutil.rmtree(model)  # from here on, the checkpoint is all that is needed
    assert nas("train", "-o", parts, "--resume")[0] == 0
    weights = [load_trained(Run.open(run))[1]["weights_hash"] for run in (whole, parts)]
    assert weights[0] == weights[1]
    code, _, err = nas("train", "-o", parts, "--resume", "--init-from", "other")
    assert code == 2
    assert f"init_from was {str(model)!r} and is now {str(tmp_path / 'other')!r}" in err


def test_a_run_without_a_checkpoint_starts_again_from_the_very_same_model(nas, model, trained_run):
    """As a training does that was killed before its first checkpoint, and as Ray workers do."""
    assert nas("train", *START, "--data", "digits", "-o", "run_once")[0] == 0
    expected = load_trained(Run.open("run_once"))[1]["weights_hash"]
    for file in Path("run_once").glob("*.safetensors*"):
        file.unlink()
    assert nas("train", "-o", "run_once", "--resume")[0] == 0
    assert load_trained(Run.open("run_once"))[1]["weights_hash"] == expected
    for file in Path("run_once").glob("*.safetensors*"):
        file.unlink()
    shutil.rmtree(model)
    export_subnet(trained_run, Run.open(trained_run).space.smallest(), model)
    code, _, err = nas("train", "-o", "run_once", "--resume")
    assert code == 2
    assert f"the model in {model} is no longer the one that the run was to start from" in err


def test_a_run_without_a_checkpoint_still_knows_its_images(nas, tmp_path, monkeypatch):
    """By the state that it started from, or that its last epoch ended with."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez("set.npz", images=images, labels=np.arange(60) % 3)
    assert nas("train", "--space", "digits", "--data", "npz:set.npz", "--epochs", 1, "-o", "early")[0] == 0
    expected = load_trained(Run.open("early"))[1]["weights_hash"]
    for file in Path("early").glob("checkpoint*"):
        file.unlink()
    shutil.copytree("early", "changed")
    assert nas("train", "-o", "early", "--resume")[0] == 0
    assert load_trained(Run.open("early"))[1]["weights_hash"] == expected
    np.savez("set.npz", images=images, labels=np.arange(60) % 4)
    code, _, err = nas("train", "-o", "changed", "--resume")
    assert code == 1
    assert "the images, labels or splits are not those it was trained on" in err


def test_a_model_trained_on_other_classes_gives_its_body(nas, model, tmp_path):
    write(tmp_path)
    assert nas("train", *START, "--data", "data.py:make", "-o", "other")[0] == 0
    assert Run.open("other").init_from["classifier"] == "redrawn"


@pytest.mark.parametrize(
    "given",
    [["--init-from", "model"], ["--teacher", "model", "--recipe", "distillation=ce_kd"]],
    ids=["start", "teacher"],
)
def test_a_model_that_was_trained_on_images_that_now_score_is_warned_of(nas, model, caplog, given):
    """As another seed splits the same data otherwise."""
    options = ["--space", "digits", "--data", "digits", "--epochs", 1, "--batch-size", 360, *given]
    for seed, warned in ((0, 0), (1, 1)):
        caplog.clear()
        code, _, err = nas("train", *options, "--seed", seed, "-o", f"seed{seed}")
        assert code == 0, err
        assert caplog.text.count("are images it was trained on, and scores are too high") == warned
    assert "if it is the same data, train with --seed 0" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init-from", ""], "init_from is ''; leave it out to start from random weights"),
        (["--init-from", "nowhere"], "nowhere is no exported model ("),
        (["--init-from", "."], "is no exported model ("),
        (
            ["--init-from", "model", "--space", "resnet_cifar"],
            "model is a model of another space: num_pools is 1 in the model and 2",
        ),
        (["--init-from", "model", "--data", "data.py:make"], "of another space: in_channels is 1 in the model and 3"),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_the_run_is_made(nas, model, tmp_path, arguments, message):
    write(tmp_path, channels=3)
    code, _, err = nas("train", "--space", "digits", "--data", "digits", "-o", "new", *arguments)
    assert code == 2
    assert message in err
    assert not Path("new").exists()


def test_an_unknown_setting_is_refused_on_resuming_too(trained_run):
    with pytest.raises(TypeError, match="unknown setting 'batchsize'; valid: epochs, batch_size"):
        train(None, None, trained_run, resume=True, batchsize=64)


def test_what_is_about_pools_warns_where_there_are_none(nas, tmp_path, caplog):
    (tmp_path / "flat.yaml").write_text(
        "{name: flat, num_pools: 0, stages: [{depths: [1], widths: [4], kernels: [1, 3]}]}"
    )
    options = ["--space", tmp_path / "flat.yaml", "--data", "digits", "--epochs", 1, "-o", tmp_path / "run"]
    pooled = ["--step-plan", "sandwich", "--recipe", "max_pooling=shared", "--sampler", "pool_weighted"]
    assert nas("train", *options, *pooled)[0] == 0
    assert [r.getMessage() for r in caplog.records if "no effect" in r.getMessage()] == [
        f"{setting} has no effect: space 'flat' places no pools"
        for setting in ("sampler pool_weighted", "max_pooling shared")
    ]


def test_a_resume_with_a_space_of_other_choices_names_them(nas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "{name: mine, num_pools: 1, stages: [{depths: [1, 2], widths: [4]}, {depths: [1], widths: [4, %s]}]}"
    Path("mine.yaml").write_text(text % 8)
    start = ("train", "--space", "mine.yaml", "--epochs", 1, "--batch-size", 360, "-o", "run")
    assert nas(*start, "--data", "digits")[0] == 0
    assert nas(*start, "--resume")[0] == 0
    Path("mine.yaml").write_text(text % 6)
    code, _, err = nas(*start, "--resume")
    assert code == 2
    assert "cannot resume run: stages[1].widths was (4, 8) and is now (4, 6)\n" in err


def test_a_space_beyond_the_memory_of_the_machine_is_refused_before_the_run_is_made(nas, tmp_path):
    (tmp_path / "vast.yaml").write_text(
        "{name: vast, num_pools: 0, stages: [{depths: [64], widths: [65536], kernels: [3]}]}"
    )
    code, _, err = nas("train", "--space", tmp_path / "vast.yaml", "--data", "digits", "-o", tmp_path / "run")
    assert code == 2
    assert re.search(r"error: space 'vast' needs 36,8\d\d GiB for its weights and their gradients; .* has \d+ GiB", err)
    assert not (tmp_path / "run").exists()


def test_batches_too_small_for_a_norm_are_refused_before_the_run_is_made(nas, tmp_path):
    chunks = ("--image-size", 2, "--step-plan", "chunked", "--recipe", "num_random=2", "--batch-size", 2)
    code, _, err = nas("train", "--space", "digits", "--data", "digits", *chunks, "-o", tmp_path / "run")
    assert code == 2
    assert "a batch of 1 image with features of 1x1 pixels: one value has no variance" in err
    assert not (tmp_path / "run").exists()


def test_an_unknown_device_is_refused_before_ray_is_asked(nas, tmp_path):
    workers = ("--num-workers", 2, "--device", "gpu")
    code, _, err = nas("train", "--space", "digits", "--data", "digits", *workers, "-o", tmp_path / "run")
    assert (code, "unknown device 'gpu'; valid: auto, cpu, cuda" in err) == (2, True)
    assert not (tmp_path / "run").exists()

"""An exported folder is the subnet it came from, stands alone, and appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from spaces import NETWORKS
from supernets import as_scored, random_data, randomised

from nas.export import FORMATS, Certificate, ExportError, export_subnet, exporter
from nas.export.formats import Exportable
from nas.export.isolated import StandaloneError, predict_isolated
from nas.run import Run, RunError
from nas.training import load_trained
from search_spaces import catalog
from supernet.evaluate import count_correct, predict, recalibrate

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_files_alone_compute_what_the_subnet_does(name, tmp_path):
    space = NETWORKS[name]
    data, supernet = random_data(space), randomised(space)
    arch = dataclasses.replace(space.sample(np.random.default_rng(1)), resolution=space.resolution_choices[0])
    subnet = supernet.export(arch)
    recalibrate(subnet, data.calibration.images, data.mean, data.std)
    FORMATS["safetensors"].write(tmp_path, Exportable(subnet, arch.key, data))
    standalone = predict_isolated(tmp_path, data.test.images)
    expected = predict(subnet, data.test.images, data.mean, data.std)
    torch.testing.assert_close(standalone, expected, rtol=0, atol=1e-5)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model.py", "model.safetensors"]


def test_a_model_that_needs_this_project_is_found_out(tmp_path):
    (tmp_path / "model.py").write_text("import supernet.subnet\n")
    with pytest.raises(
        StandaloneError, match="does not run on its own: ModuleNotFoundError: No module named 'supernet'"
    ):
        predict_isolated(tmp_path, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.fixture
def run(trained_run):
    return Run.open(trained_run)


def test_an_exported_folder_is_complete_and_its_figures_agree(run, tmp_path):
    arch = run.space.smallest()
    certificate = export_subnet(run, arch, tmp_path / "model")
    names = sorted(f.name for f in (tmp_path / "model").iterdir())
    assert names == ["README.md", "certificate.json", "config.json", "model.py", "model.safetensors"]
    assert (certificate.macs, certificate.params) == (certificate.counted_macs, certificate.counted_params)
    data = load_trained(run)[2]
    subnet = as_scored(run, arch)
    assert certificate.model.correct == count_correct(subnet, data.test, data.mean, data.std)
    assert certificate.model.total == len(data.test)

    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert run.space.arch_from_dict(config["arch"]) == arch
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    assert config["label_names"] == [str(i) for i in range(10)]
    assert config["certificate"] == certificate.summary()
    written = json.loads((tmp_path / "model" / "certificate.json").read_text())
    assert written == certificate.to_dict()
    assert Certificate.from_dict(written) == certificate
    card = (tmp_path / "model" / "README.md").read_text()
    assert certificate.model.accuracy in card
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_failed_check_keeps_the_files_under_a_name_that_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "safetensors", dataclasses.replace(FORMATS["safetensors"], atol=-1.0))
    with pytest.raises(
        ExportError, match=r"logits of model.safetensors differ by .*; the files are in .*model\.failed"
    ):
        export_subnet(run, run.space.smallest(), tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model.failed"]
    assert (tmp_path / "model.failed" / "model.safetensors").exists()


def test_an_error_half_way_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporter, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        export_subnet(run, run.space.smallest(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_of_another_space_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ValueError, match="gene depth has 3 entries"):
        export_subnet(run, catalog.get("resnet_cifar").smallest(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_refused(run, tmp_path):
    (tmp_path / "model").write_text("I am a file")
    with pytest.raises(RunError, match="is a file; a folder is needed"):
        export_subnet(run, run.space.smallest(), tmp_path / "model")


def test_the_model_trains_further_in_plain_torch(run, tmp_path, monkeypatch):
    """A user fine-tunes what was exported: it is an ordinary module with ordinary gradients."""
    export_subnet(run, run.space.smallest(), tmp_path / "model")
    shutil.copy(tmp_path / "model" / "model.py", tmp_path / "exported_model.py")
    monkeypatch.syspath_prepend(tmp_path)
    import exported_model

    model = exported_model.load(tmp_path / "model").train()
    x = exported_model.preprocess(torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8))
    labels = torch.arange(64) % 10
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    del sys.modules["exported_model"]

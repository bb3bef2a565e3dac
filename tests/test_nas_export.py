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
from supernets import randomised

import nas.export as exporting
from nas.export import ExportError, export_subnet
from nas.export.isolated import StandaloneError, predict_isolated
from nas.run import DataOptions, Run, RunError
from search_spaces import catalog
from supernet.data import ImageData, Split
from supernet.evaluate import predict, recalibrate
from supernet.recipe import TrainConfig


def random_data(space):
    generator = torch.Generator().manual_seed(0)
    shape = (40, space.in_channels, space.image_size, space.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(40) % space.num_classes)
    classes = tuple(map(str, range(space.num_classes)))
    mean, std = (0.4,) * space.in_channels, (0.3,) * space.in_channels
    return ImageData(split, split, split, split, mean, std, classes, False, 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_files_alone_compute_what_the_subnet_does(name, tmp_path):
    space = NETWORKS[name]
    data, supernet = random_data(space), randomised(space)
    arch = dataclasses.replace(space.sample(np.random.default_rng(1)), resolution=space.resolution_choices[0])
    subnet = supernet.export(arch)
    recalibrate(subnet, data.calibration.images, data.mean, data.std)
    exporting.write_model(tmp_path, subnet.plan, arch.key, subnet, data)
    standalone = predict_isolated(tmp_path, data.test.images)
    expected = predict(subnet, data.test.images, data.mean, data.std)
    torch.testing.assert_close(standalone, expected, rtol=0, atol=1e-5)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model.py", "model.safetensors"]


def test_a_network_of_a_lower_resolution_says_so_and_takes_images_of_any_size(tmp_path, monkeypatch):
    space = NETWORKS["every_block_strided_and_pooled"]
    data, supernet = random_data(space), randomised(space)
    run = Run.create(tmp_path / "run", space, DataOptions("digits"), TrainConfig(), list(data.classes))
    monkeypatch.setattr(exporting, "load_trained", lambda run: (supernet, {"weights_hash": "0" * 64}, data))
    arch = space.smallest()
    assert (arch.resolution, data.image_size) == (11, 16)
    certificate = export_subnet(run, arch, tmp_path / "model")
    assert certificate.macs == certificate.counted_macs
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [2, 11, 11]
    assert "| Input | 11x11 pixels" in (tmp_path / "model" / "README.md").read_text()
    source = (tmp_path / "model" / "model.py").read_text()
    assert all(f"class {name}(" in source for name in ("Stem", "BasicBlock", "BottleneckBlock", "MBConvBlock", "Head"))


def test_a_model_that_needs_this_project_is_found_out(tmp_path):
    (tmp_path / "model.py").write_text("import supernet.subnet\n")
    with pytest.raises(StandaloneError, match="supernet is out of reach: an exported model stands alone"):
        predict_isolated(tmp_path, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.fixture
def run(trained_run):
    return Run.open(trained_run)


def test_an_exported_folder_is_complete_and_its_figures_agree(run, tmp_path):
    arch = run.space.smallest()
    certificate = export_subnet(run, arch, tmp_path / "model")
    names = sorted(f.name for f in (tmp_path / "model").iterdir())
    assert names == ["README.md", "config.json", "model.py", "model.safetensors"]
    assert certificate.max_delta <= 1e-5
    assert (certificate.macs, certificate.params) == (certificate.counted_macs, certificate.counted_params)
    assert certificate.correct == round(certificate.top1 * certificate.total)

    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert run.space.arch_from_dict(config["arch"]) == arch
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    assert config["label_names"] == [str(i) for i in range(10)]
    assert config["certificate"]["correct"] == certificate.correct
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"({certificate.correct} of {certificate.total} images)" in card
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_failed_check_keeps_the_files_under_a_name_that_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MAX_DELTA", -1.0)
    with pytest.raises(ExportError, match=r"logits differ by .*; the files are in .*model\.failed"):
        export_subnet(run, run.space.smallest(), tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model.failed"]
    assert (tmp_path / "model.failed" / "model.safetensors").exists()


def test_an_error_half_way_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_json", full)
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

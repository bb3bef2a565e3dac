"""Teachers from outside: an exported model and a torchvision network, fed as they were trained."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from nas import export_subnet
from nas.run import Run
from nas.training import load_trained
from supernet.data import RawData, normalize, prepare
from supernet.evaluate import predict
from supernet.teacher import Teacher, TeacherError, load_teacher


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "model"
    run = Run.open(trained_run)
    export_subnet(run, run.space.largest(), folder)
    return folder


def colours(num_classes=10, size=32):
    images = torch.randint(256, (90, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(90) % num_classes
    return prepare(RawData(images, labels, images, labels, tuple(map(str, range(num_classes))), True, 0), seed=0)


def test_an_exported_model_answers_as_its_subnet_did(trained_run, exported):
    _, _, data = load_trained(Run.open(trained_run))
    teacher = load_teacher(str(exported), data)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    images = data.validation.images[:20]
    subnet = teacher.network
    torch.testing.assert_close(
        teacher(normalize(images, data.mean, data.std)), predict(subnet, images, data.mean, data.std)
    )


def test_a_teacher_sees_images_in_its_own_normalisation_and_size():
    seen = []
    network = torch.nn.Module()
    network.forward = lambda x: seen.append(x) or x.mean((2, 3))
    ours, theirs = ((0.5, 0.4, 0.3), (0.2, 0.1, 0.6)), ((0.2, 0.3, 0.2), (0.5, 0.4, 0.1))
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    teacher = Teacher(network, ours, theirs, None)
    teacher(normalize(pixels, ours[0], theirs[0]))
    torch.testing.assert_close(seen[0], normalize(pixels, ours[1], theirs[1]), rtol=1e-5, atol=1e-5)
    Teacher(network, ours, theirs, 16)(torch.zeros(1, 3, 8, 8))
    assert seen[1].shape == (1, 3, 16, 16)


def test_a_network_too_deep_for_the_images_is_named_with_their_size(tmp_path):
    from torchvision import models

    file = tmp_path / "weights.safetensors"
    save_file(models.squeezenet1_1(num_classes=10).state_dict(), file)
    spec = f"torchvision:squeezenet1_1:{file}"
    assert load_teacher(spec, colours())
    with pytest.raises(TeacherError, match=rf"the teacher {spec} cannot take images of 8x8 pixels: .*too small"):
        load_teacher(spec, colours(size=8))


def test_a_torchvision_network_with_weights_of_ones_own(tmp_path):
    from torchvision import models  # here, for its import takes a second of every test process

    network = models.resnet18(num_classes=10).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    teacher = load_teacher(f"torchvision:resnet18:{tmp_path / 'weights.safetensors'}", colours())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher(x), network(x))


def test_weights_of_another_network_are_refused_in_few_words(tmp_path):
    from torchvision import models

    save_file(models.squeezenet1_1(num_classes=10).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(TeacherError, match="does not hold the weights of resnet18 for 10 classes: ") as caught:
        load_teacher(f"torchvision:resnet18:{tmp_path / 'weights.safetensors'}", colours())
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "nowhere",
            "teacher cannot be used: nowhere is no exported model .*valid: the folder of .*torchvision:NAME",
        ),
        ("torchvision:resnet0", "no classifier 'resnet0'; valid: .*resnet18"),
        (
            "torchvision:resnet18:none.safetensors",
            "there is no file of weights 'none.safetensors' for torchvision:resnet18",
        ),
    ],
)
def test_what_cannot_be_read_is_named(spec, message):
    with pytest.raises(TeacherError, match=message):
        load_teacher(spec, colours())


def test_a_teacher_of_other_classes_or_channels_is_refused_naming_both(exported, tmp_path):
    with pytest.raises(TeacherError, match="takes 1 channels, the data has 3"):
        load_teacher(str(exported), colours())
    data = colours(num_classes=3)
    from torchvision import models

    network = models.resnet18(num_classes=10)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(TeacherError, match="does not hold the weights of resnet18 for 3 classes"):
        load_teacher(f"torchvision:resnet18:{tmp_path / 'weights.safetensors'}", data)


def test_the_datas_classes_in_another_order_are_refused(trained_run, exported):
    _, _, data = load_trained(Run.open(trained_run))
    load_teacher(str(exported), replace(data, classes=tuple("abcdefghij")))  # other names may mean the same
    with pytest.raises(TeacherError, match=r"in another order: 0, 1, .*; the data has 9, 8, "):
        load_teacher(str(exported), replace(data, classes=data.classes[::-1]))


def test_another_number_of_classes_than_the_data_is_named(trained_run, exported, tmp_path):
    """An exported digits model of ten classes, and digits of which only four classes are left."""
    _, _, data = load_trained(Run.open(trained_run))
    keep = data.train.labels < 4
    images, labels = data.train.images[keep], data.train.labels[keep]
    few = prepare(RawData(images, labels, images, labels, ("0", "1", "2", "3"), False, 0), seed=0)
    with pytest.raises(TeacherError, match="has 10 classes, the data set 4"):
        load_teacher(str(exported), few)


def test_weights_of_other_classes_are_not_downloaded(monkeypatch):
    monkeypatch.setattr("torchvision.models.get_model", None)
    with pytest.raises(
        TeacherError, match=r"resnet18 know 1000 classes, the data set 10; .*torchvision:resnet18:WEIGHTS"
    ):
        load_teacher("torchvision:resnet18", colours())


def test_a_changed_config_is_refused(exported, tmp_path):
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()) if file.is_file() else None
    config = json.loads((tmp_path / "config.json").read_text())
    del config["space"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match=r"config.json is not that of an exported model: it lacks 'space'"):
        load_teacher(str(tmp_path), colours())

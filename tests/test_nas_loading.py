"""`nas.load` gives an exported folder back as the module that it is, ready for plain torch."""

from __future__ import annotations

import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import nas
from nas.export import export_subnet
from nas.export.isolated import predict_isolated
from nas.loading import LoadError
from nas.run import Run
from supernet import datasets

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


def test_a_loaded_model_is_the_exported_one(exported):
    files = sorted(exported.iterdir())
    model = nas.load(exported)
    images = datasets.load("digits").test_images[:50]
    with torch.no_grad():
        assert torch.equal(model(model.preprocess(images)), predict_isolated(exported, images))
    assert not model.training
    saved = load_file(exported / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert all(isinstance(part, nn.Module) and "supernet" not in type(part).__module__ for part in model.modules())
    assert sorted(exported.iterdir()) == files, "loading leaves nothing in the folder"
    again = pickle.loads(pickle.dumps(model))  # as processes that train together pass it on
    assert torch.equal(again.head.fc.weight, model.head.fc.weight)


def test_two_loaded_models_do_not_share_anything(exported, copy):
    (copy / "model.py").write_text((copy / "model.py").read_text().replace("MEAN = (", "MEAN = (1 + "))
    first, second = nas.load(exported), nas.load(str(copy))
    image = datasets.load("digits").test_images[:1]
    assert not torch.equal(first.preprocess(image), second.preprocess(image))
    second.head.fc.weight.data.zero_()
    assert first.head.fc.weight.any()


def test_a_loaded_model_is_fine_tuned_on_other_classes_in_plain_torch(exported):
    """Even and odd digits: a new classifier on the body that told ten digits apart, trained for one epoch."""
    raw = datasets.load("digits")
    labels, test_labels = raw.train_labels % 2, raw.test_labels % 2
    torch.manual_seed(0)
    model = nas.load(exported).train()
    model.head.fc = nn.Linear(model.head.fc.in_features, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for batch in torch.randperm(len(labels)).split(64):
        loss = F.cross_entropy(model(model.preprocess(raw.train_images[batch])), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        correct = (model(model.preprocess(raw.test_images)).argmax(1) == test_labels).float().mean()
    assert correct > 0.8
    trained = model.state_dict()
    assert all(not torch.equal(trained[name], before[name]) for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no folder .*model; give one that `nas export` wrote"),
        (lambda m: (m / "model.py").unlink(), "model is no exported model: it lacks model.py"),
        (lambda m: [f.unlink() for f in m.iterdir()], "it lacks model.py, model.safetensors, config.json"),
        (lambda m: (m / "model.safetensors").write_bytes(b"no weights"), "cannot be loaded: SafetensorError"),
        (lambda m: (m / "model.py").write_text("def load(:"), "cannot be loaded: SyntaxError: .*model.py, line 1"),
        (lambda m: (m / "model.py").write_text("x = 1"), "cannot be loaded: AttributeError: .*'load'"),
    ],
)
def test_what_is_no_exported_model_is_named(copy, damage, message):
    damage(copy)
    with pytest.raises(LoadError, match=message):
        nas.load(copy)


def test_weights_of_another_architecture_are_named(trained_run, copy, tmp_path):
    export_subnet(trained_run, Run.open(trained_run).space.smallest(), tmp_path / "small")
    shutil.copy(tmp_path / "small" / "model.safetensors", copy)
    with pytest.raises(LoadError, match=r"cannot be loaded: RuntimeError: Error\(s\) in loading state_dict for Model$"):
        nas.load(copy)

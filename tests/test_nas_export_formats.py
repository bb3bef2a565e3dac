"""Every format computes what was scored, and the certificate says what was measured on it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import onnxruntime
import pytest
import torch
from packaging.requirements import Requirement
from spaces import NETWORKS
from supernets import as_scored, random_data, randomised

from nas.data_options import DataOptions
from nas.export import FORMATS, Budget, export_subnet, exporter, isolated
from nas.export.certificate import CHECK_IMAGES, project_revision
from nas.run import Run
from nas.training import load_trained
from supernet.data import Split
from supernet.evaluate import count_correct, predict
from supernet.recipe import TrainConfig

ROOT = Path(__file__).parent.parent
GRAPHS = [name for name in FORMATS if name != "safetensors"]
PACKAGES = {"safetensors": ("torch", "safetensors"), "onnx": ("onnxruntime", "numpy"), "pt2": ("torch",)}
BUDGETS = (
    Budget("phone", 1e-6, "onnxruntime", 1),
    Budget("server", 1e6, "onnxruntime", 1),
    Budget("other", 1.0, "onnxruntime", 64),
)


@pytest.fixture(scope="module", autouse=True)
def new_processes(quick_checks):
    """Each check has a Python that has imported nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated, "PYTHON", sys.executable)
        yield


@pytest.fixture(scope="module")
def run(trained_run):
    return Run.open(trained_run)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A folder with every format, and its certificate. Not to be written to."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    return folder, export_subnet(run, run.space.smallest(), folder, formats=tuple(FORMATS), budgets=BUDGETS)


@pytest.fixture(scope="module")
def subnet(run):
    return as_scored(run, run.space.smallest())


def pixels(count, channels=1, size=8):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def logits_of(name, folder, images):
    prepare, run, _ = FORMATS[name].opened(str(folder), None)
    return torch.as_tensor(run(prepare(bytearray(images.numpy().tobytes()), list(images.shape)))).clone()


def assert_equal(name, logits, expected):
    allowed = FORMATS[name].atol + FORMATS[name].rtol * float(expected.abs().max())
    assert float((logits - expected).abs().max()) <= allowed


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_takes_batches_of_any_size(name, exported, run, subnet):
    data = load_trained(run)[2]
    for count in (1, 3, 250):
        logits = logits_of(name, exported[0], pixels(count))
        assert logits.shape == (count, 10)
        assert_equal(name, logits, predict(subnet, pixels(count), data.mean, data.std))


@pytest.mark.parametrize("name", FORMATS)
def test_the_certificate_has_what_was_measured_on_each_format(name, exported, run, subnet):
    folder, certificate = exported
    check = certificate.formats[name]
    data = load_trained(run)[2]
    assert check.file == FORMATS[name].file
    assert check.bytes == (folder / check.file).stat().st_size
    assert check.check_images == min(CHECK_IMAGES, len(data.test))
    assert check.max_delta <= check.allowed
    assert check.allowed < 1e-3
    assert (check.correct, check.total) == (count_correct(subnet, data.test, data.mean, data.std), len(data.test))
    assert 0 < check.latency_ms <= check.latency_p90_ms
    assert (1 <= check.runs <= 30, check.threads) == (True, 1)
    package = PACKAGES[name][0]
    assert check.versions[package].startswith(distribution(package).version.partition("+")[0])


def test_the_certificate_file_says_all_of_it(exported, run):
    folder, certificate = exported
    written = json.loads((folder / "certificate.json").read_text())
    assert written == certificate.to_dict()
    assert written["macs"] == written["counted_macs"] > 0
    assert written["params"] == written["counted_params"] > 0
    assert written["supernet"] == load_trained(run)[1]["weights_hash"]
    assert (written["seed"], written["trust"], written["finetuned"]) == (0, None, None)
    assert written["revision"] == project_revision()
    assert written["formats"]["onnx"]["failure"] is None
    config = json.loads((folder / "config.json").read_text())
    assert config["certificate"]["top1"] == written["top1"] == written["formats"]["safetensors"]["top1"]


def test_a_broken_budget_is_marked_and_fails_nothing(exported):
    held = {budget["name"]: budget for budget in exported[1].held()}
    latency = exported[1].formats["onnx"].latency_ms
    assert held["phone"] == {
        "name": "phone", "limit_ms": 1e-6, "runtime": "onnxruntime", "threads": 1, "measured_ms": latency, "met": False
    }  # fmt: skip
    assert held["server"]["met"] is True
    assert (held["other"]["measured_ms"], held["other"]["met"]) == (None, None)
    assert exported[1].failures() == []


@pytest.mark.parametrize("names", [["safetensors"], GRAPHS])
def test_a_file_with_other_weights_fails_the_check_and_is_kept(
    names, exported, subnet, run, nas, monkeypatch, tmp_path
):
    bias = subnet.state_dict()["head.fc.bias"]
    before, after = bias.numpy().tobytes(), (bias + 1e-3 * torch.arange(10)).numpy().tobytes()
    for name in names:
        whole = (exported[0] / FORMATS[name].file).read_bytes()
        assert whole.count(before) == 1
        monkeypatch.setitem(FORMATS, name, replace(FORMATS[name], write=tampered(name, whole.replace(before, after))))
    arch = json.dumps(run.space.smallest().to_dict())
    code, out, err = nas("export", run, "--arch", arch, "-o", tmp_path / "out" / "model", "--format", ",".join(names))
    assert code == 1
    assert f"the files are in {tmp_path / 'out' / 'model.failed'}" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.failed"]
    kept = json.loads((tmp_path / "out" / "model.failed" / "certificate.json").read_text())
    for name in names:
        assert name in out
        assert kept["formats"][name]["failure"] in err
    assert [name for name, check in kept["formats"].items() if check["failure"]] == names


def tampered(name, content):
    real = FORMATS[name].write

    def write(folder, model):
        if name == "safetensors":  # whose `model.py` is as it was
            real(folder, model)
        (folder / FORMATS[name].file).write_bytes(content)

    return write


@pytest.fixture
def mixed_run(tmp_path, monkeypatch):
    """A run of a space with every kind of block, two channels, and networks smaller than its images."""
    space = NETWORKS["every_block_strided_and_pooled"]
    data, supernet = random_data(space), randomised(space)
    monkeypatch.setattr(exporter, "load_trained", lambda run: (supernet, {"weights_hash": "0" * 64}, data))
    return Run.create(tmp_path / "run", space, DataOptions("digits"), TrainConfig(), list(data.classes))


def test_graphs_with_preprocessing_take_pictures_of_the_networks_own_size(mixed_run, nas, tmp_path):
    arch, folder = mixed_run.space.smallest(), tmp_path / "model"
    assert (arch.resolution, mixed_run.space.image_size) == (11, 16)
    options = ["--arch", json.dumps(arch.to_dict()), "-o", folder, "--format", ",".join(GRAPHS), "--with-preprocessing"]
    code, out, err = nas("export", mixed_run, *options, "--json")
    assert code == 0, err
    assert json.loads(out)["formats"].keys() == FORMATS.keys()
    images = pixels(5, channels=2, size=11)
    expected = logits_of("safetensors", folder, images)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    [logits] = session.run(["logits"], {"input": images.numpy()})
    assert_equal("onnx", torch.from_numpy(logits), expected)
    with torch.no_grad():
        assert_equal("pt2", torch.export.load(folder / "model.pt2").module()(images), expected)
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [2, 11, 11]
    card = (folder / "README.md").read_text()
    assert "| Input | 11x11 pixels" in card
    assert "`model.onnx` and `model.pt2` take uint8 images [batch, 2, 11, 11] and normalise them" in card
    source = (folder / "model.py").read_text()
    assert all(f"class {name}(" in source for name in ("Stem", "BasicBlock", "BottleneckBlock", "MBConvBlock", "Head"))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_names_no_file_of_the_machine_it_was_made_on(name, exported):
    assert str(ROOT).encode() not in (exported[0] / FORMATS[name].file).read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_runs_where_only_its_packages_are_installed(name, exported, run, subnet, monkeypatch, tmp_path):
    python = environment_of(PACKAGES[name], tmp_path / "venv")
    for module in {"nas", "supernet", "optuna", "torch", "onnxruntime"} - set(PACKAGES[name]):
        refused = subprocess.run([python, "-I", "-c", f"import {module}"], capture_output=True, text=True, check=False)
        assert f"No module named '{module}'" in refused.stderr
    data = load_trained(run)[2]
    question = isolated.Question.write(tmp_path / "images.bin", data.test, data.image_size)
    monkeypatch.setattr(isolated, "PYTHON", str(python))
    monkeypatch.setattr(isolated, "PROJECT", ())  # nothing is hidden there: what is missing is not installed
    monkeypatch.setitem(FORMATS, name, replace(FORMATS[name], refused=()))
    there = isolated.ask(name, exported[0], question, logits=len(data.test), runs=0)
    assert there.correct == exported[1].formats[name].correct
    assert_equal(name, there.logits, predict(subnet, data.test.images, data.mean, data.std))


def environment_of(packages, folder):
    """The interpreter of a new virtual environment with these packages and what they declare that they need."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    for name in closure(packages):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():  # a namespace that several share
                (site / top).symlink_to(found.locate_file(top))
    return folder / "bin" / "python"


def closure(names):
    needed, todo = set(), list(names)
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name not in needed:
            needed.add(requirement.name)
            for text in distribution(requirement.name).requires or ():
                marker = Requirement(text).marker
                if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                    todo.append(text)
    return needed


def test_logits_that_are_not_finite_are_named(run, tmp_path, subnet):
    from nas.export.formats import Exportable

    broken = as_scored(run, run.space.smallest())
    with torch.no_grad():
        broken.head.fc.bias[0] = torch.nan
    FORMATS["safetensors"].write(tmp_path, Exportable(broken, "key", load_trained(run)[2]))
    split = Split(pixels(3), torch.zeros(3, dtype=torch.int64))
    question = isolated.Question.write(tmp_path / "images.bin", split, 8)
    with pytest.raises(isolated.StandaloneError, match="its logits are not finite"):
        isolated.ask("safetensors", tmp_path, question, logits=3)


REFUSED = {
    "unknown format 'tflite'; valid: safetensors, onnx, pt2": ["--format", "tflite"],
    "unknown format ''; valid: safetensors, onnx, pt2": ["--format", "onnx,"],
    "preprocessing goes into graphs: name a format that is one (onnx, pt2) with it": ["--with-preprocessing"],
    "threads is 0; valid: at least 1": ["--threads", "0"],
    "study 'default' has no fine-tuned weights of": ["--finetuned"],
}


def test_bad_options_are_refused_before_torch_is_loaded(run, tmp_path):
    arch = json.dumps(run.space.smallest().to_dict())
    start = ["nas", "export", str(run), "--arch", arch, "-o", str(tmp_path / "model")]
    script = f"""
import sys
from nas import cli
for options in {list(REFUSED.values())!r}:
    sys.argv = {start!r} + options
    try:
        cli.main()
    except SystemExit as stop:
        print(stop.code, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["2 False"] * len(REFUSED), done.stderr
    assert all(message in line for message, line in zip(REFUSED, done.stderr.splitlines(), strict=True))
    assert list(tmp_path.iterdir()) == []


def test_a_format_whose_packages_are_missing_says_how_to_install_them(run, nas, monkeypatch, tmp_path):
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], needs=("onnx", "no_such_module")))
    arch = json.dumps(run.space.smallest().to_dict())
    code, _, err = nas("export", run, "--arch", arch, "-o", tmp_path / "model", "--format", "onnx")
    assert code == 2
    assert "the format onnx needs no_such_module; install with: pip install 'nas-service[onnx]'" in err

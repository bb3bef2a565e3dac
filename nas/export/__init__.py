"""Turning a subnet into a folder that needs torch and safetensors alone, and proving that it is what was scored."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.export.source import model_source
from nas.finetune_report import described, load_finetuned
from nas.run import Run, require_empty, versions, write_json
from nas.training import load_trained
from nas.trust_report import quote, quoted_text
from search_spaces.arch import Arch
from search_spaces.plan import Plan, plan

if TYPE_CHECKING:
    from supernet.data import ImageData
    from supernet.mixture import SharedWeights
    from supernet.subnet import Subnet

MAX_DELTA = 1e-5  # largest logit difference, in fp32, between the exported model and the subnet it came from
CHECK_IMAGES = 256


class ExportError(RuntimeError):
    """The exported folder failed a check; the message says which, and where the files are kept."""


@dataclass(frozen=True)
class Certificate:
    """What was checked on the exported files.

    max_delta: largest |Δ logit| on `check_images` real images, between the folder run by a process that cannot import
    this project and the subnet that was scored. correct, total, top1: on the test set, read once for this.
    macs, params: of the plan; counted_*: by an independent counter on the model. weights_bytes: size of the weights.
    validation_top1: the search's score of the same architecture, recomputed.
    trust: how well the supernet's scores rank (`nas trust`), where that was measured with these weights.
    finetuned: how the weights came about, where they are those of `nas finetune`; else they are the supernet's.
    """

    key: str
    max_delta: float
    check_images: int
    top1: float
    correct: int
    total: int
    validation_top1: float
    macs: int
    counted_macs: int
    params: int
    counted_params: int
    weights_bytes: int
    supernet: str
    seed: int
    trust: dict[str, Any] | None = None
    finetuned: dict[str, Any] | None = None

    def failures(self) -> list[str]:
        """The checks that did not hold."""
        failed = []
        if not self.max_delta <= MAX_DELTA:
            failed.append(f"logits differ by {self.max_delta:.2g}, more than {MAX_DELTA:g}")
        if (self.macs, self.params) != (self.counted_macs, self.counted_params):
            failed.append(
                f"{self.macs} MACs and {self.params} parameters were planned, {self.counted_macs} and "
                f"{self.counted_params} counted"
            )
        return failed


def export_subnet(
    run: Run | str | Path, arch: Arch, out: str | Path, *, force: bool = False, finetuned: str | None = None
) -> Certificate:
    """Writes `arch` of the run's supernet to the folder `out`, checks it and returns the certificate.

    The folder gets `model.py` (a plain nn.Module), `model.safetensors`, `config.json` (the architecture, and timm's
    preprocessing keys) and a model card `README.md`. force: write into a folder that is not empty. finetuned: name of
    the study as a trial of which `nas finetune` trained `arch` on; its weights then are written, not the supernet's.
    Raises ValueError for an architecture of another space, RunError for a folder in use or where there are no
    fine-tuned weights, OSError when the disk is
    full, and ExportError when a check fails; the files are then kept beside `out`, under a name that says so.
    """
    from supernet.evaluate import count_correct, predict
    from supernet.subnet import count_macs, count_params

    run = run if isinstance(run, Run) else Run.open(run)
    out = Path(out).absolute()
    lowered = plan(run.space, arch)
    require_empty(out, None if force else "name another folder, or overwrite with --force")
    supernet, state, data = load_trained(run)
    trust = quote(run, state["weights_hash"])  # before anything reads the test set
    subnet, entry = _weighted(run, arch, supernet, state, data, finetuned)

    with _staging(out) as staged:
        write_model(staged, lowered, arch.key, subnet, data)
        images = data.validation.images[:CHECK_IMAGES]
        certificate = Certificate(
            key=arch.key,
            max_delta=_max_delta(staged, predict(subnet, images, data.mean, data.std), images),
            check_images=len(images),
            correct=(correct := count_correct(subnet, data.test, data.mean, data.std)),
            total=len(data.test.labels),
            top1=correct / len(data.test.labels),
            validation_top1=count_correct(subnet, data.validation, data.mean, data.std) / len(data.validation.labels),
            macs=lowered.macs,
            counted_macs=count_macs(subnet, (lowered.in_channels, lowered.resolution, lowered.resolution)),
            params=lowered.params,
            counted_params=count_params(subnet),
            weights_bytes=(staged / "model.safetensors").stat().st_size,
            supernet=state["weights_hash"],
            seed=run.recipe.seed,
            trust=trust,
            finetuned=entry,
        )
        write_json(staged / "config.json", _config(run, arch, data, certificate))
        (staged / "README.md").write_text(_model_card(run, arch, certificate), encoding="utf-8")
        if failures := certificate.failures():
            kept = _free_name(out)
            staged.rename(kept)
            raise ExportError(f"the exported model failed its check: {'; '.join(failures)}; the files are in {kept}")
        _publish(staged, out)
    return certificate


def _weighted(
    run: Run, arch: Arch, supernet: SharedWeights, state: Mapping[str, Any], data: ImageData, finetuned: str | None
) -> tuple[Subnet, dict[str, Any] | None]:
    """The subnet to export, with the supernet's weights or with fine-tuned ones, and what is known of the latter."""
    from supernet.evaluate import recalibrate

    subnet = supernet.export(arch)
    if finetuned is None:
        recalibrate(subnet, data.calibration.images, data.mean, data.std)
        return subnet, None
    weights, entry = load_finetuned(run, finetuned, arch, state)
    subnet.load_state_dict(weights)
    return subnet.eval(), entry


def write_model(folder: Path, lowered: Plan, key: str, subnet: Subnet, data: ImageData) -> None:
    """Writes `model.py` and `model.safetensors`."""
    from safetensors.torch import save_file

    # the counters of batches seen have no use in a model that is not trained on, but plain modules expect them
    save_file({name: t.contiguous() for name, t in subnet.state_dict().items()}, folder / "model.safetensors")
    source = model_source(lowered, key, data)
    (folder / "model.py").write_text(source, encoding="utf-8")


def _max_delta(folder: Path, expected: Any, images: Any) -> float:
    from nas.export.isolated import predict_isolated

    return float((predict_isolated(folder, images.cpu()) - expected).abs().max())


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder beside `out`, on the same file system, that is gone afterwards unless it was moved."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        staged = Path(scratch) / "model"
        staged.mkdir()
        yield staged


def _free_name(out: Path) -> Path:
    names = (out.with_name(f"{out.name}.failed{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def _publish(staged: Path, out: Path) -> None:
    """Moves the finished files into place; a folder that is there already (--force) keeps its other files."""
    if not out.exists():
        staged.rename(out)
        return
    for file in staged.iterdir():
        file.replace(out / file.name)


def _config(run: Run, arch: Arch, data: ImageData, certificate: Certificate) -> dict[str, Any]:
    return {
        "architecture": run.space.name,
        "num_classes": data.num_classes,
        "label_names": list(data.classes),
        "pretrained_cfg": {
            "input_size": [data.in_channels, arch.resolution, arch.resolution],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": data.num_classes,
            "first_conv": "stem.conv",
            "classifier": "head.fc",
        },
        "space": run.space.to_dict(),
        "arch": arch.to_dict(),
        "certificate": asdict(certificate),
        "data": run.data.name,
        "versions": versions(),
    }


def _model_card(run: Run, arch: Arch, c: Certificate) -> str:
    rows = {
        "Test top-1": f"{c.top1:.2%} ({c.correct} of {c.total} images)",
        "Search-validation top-1": f"{c.validation_top1:.2%}",
        "Input": f"{arch.resolution}x{arch.resolution} pixels; `preprocess` resizes images of another size (bicubic)",
        "MACs (multiply-adds for one image)": f"{c.macs:,}",
        "Parameters": f"{c.params:,}",
        "Weights file": f"{c.weights_bytes:,} bytes",
        "Largest logit difference to the subnet that was scored": f"{c.max_delta:.1e} on {c.check_images} images",
        "Data set": run.data.name,
        "Search space": run.space.name,
        "Supernet (SHA-256 of its weights)": f"`{c.supernet[:16]}`",
        "Training seed": str(c.seed),
        "Trust in the supernet's ranking": quoted_text(c.trust),
    }
    if c.finetuned:
        rows |= {"Fine-tuning": described(c.finetuned)}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# An image classifier found by architecture search

A convolutional network with searched depth, widths and downsampling, cut out of a weight-sharing supernet.
`model.py` needs torch and safetensors alone:

```python
from model import load, preprocess
model = load()
logits = model(preprocess(images))  # uint8 [batch, {run.space.in_channels}, height, width]
```

| | |
|---|---|
{table}

{_origin(c.finetuned)} `config.json` holds the architecture, the class names and timm's preprocessing keys.

Architecture: `{json.dumps(c.key)[1:-1]}`
"""


def _origin(finetuned: Mapping[str, Any] | None) -> str:
    if finetuned and finetuned["kept"] == "finetuned":
        return "Its weights were fine-tuned from the supernet's, with batch-norm statistics recalibrated for them."
    tried = "fine-tuning was tried and did\nnot improve on them." if finetuned else "it was not\nfine-tuned."
    return f"Its weights come from the supernet, with batch-norm statistics recalibrated for this architecture; {tried}"

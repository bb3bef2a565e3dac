"""What an exported folder says of itself: `config.json` for programs, the model card `README.md` for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.export.formats import ALWAYS
from nas.finetune_report import described
from nas.run import Run, versions
from nas.trust_report import quoted_text
from search_spaces.arch import Arch

if TYPE_CHECKING:
    from nas.export.certificate import Certificate, FormatCheck
    from supernet.data import ImageData


def config(run: Run, arch: Arch, data: ImageData) -> dict[str, Any]:
    """The architecture, the class names and timm's preprocessing keys."""
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
        "data": run.data.name,
        "init_from": run.init_from and {name: run.init_from.get(name) for name in ("weights", "classifier")},
        "versions": versions(),
    }


def model_card(run: Run, arch: Arch, c: Certificate) -> str:
    """The text of `README.md`."""
    model = c.model
    rows = {
        "Test top-1": model.accuracy,
        "Search-validation top-1": f"{c.validation_top1:.2%}",
        "Input": f"{arch.resolution}x{arch.resolution} pixels; `preprocess` resizes images of another size (bicubic)",
        "MACs (multiply-adds for one image)": f"{c.macs:,}",
        "Parameters": f"{c.params:,}",
        **{f"`{check.file}`": _measured(check) for check in c.formats.values()},
        "Data set": run.data.name,
        "Search space": run.space.name,
        "Supernet (SHA-256 of its weights)": f"`{c.supernet[:16]}`",
        **_start(run),
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
{_graphs(run, arch, c)}
| | |
|---|---|
{table}

{_origin(c.finetuned)} `config.json` holds the architecture, the class names and timm's preprocessing keys,
`certificate.json` all that was measured.

Architecture: `{json.dumps(c.key)[1:-1]}`
"""


def _start(run: Run) -> dict[str, str]:
    """The model that the supernet's weights started from, where there was one."""
    if run.init_from is None:
        return {}
    digest, classifier = (run.init_from.get(name) for name in ("weights", "classifier"))
    return {
        "The supernet started from a model (SHA-256 of its weights)": f"`{str(digest)[:16]}`, classifier {classifier}"
    }


def _measured(check: FormatCheck) -> str:
    if check.max_delta is None:
        return f"{check.bytes:,} bytes; {check.error}"
    return (
        f"{check.bytes:,} bytes; {check.correct} of {check.total} images right; logits within {check.max_delta:.1e} of "
        f"the scored subnet's on {check.check_images}; {check.latency_ms:.3g} ms for one image ({check.runtime}, "
        f"{check.threads} thread{'s' * (check.threads != 1)})"
    )


def _graphs(run: Run, arch: Arch, c: Certificate) -> str:
    """How to use the other files, if there are any."""
    files = [check.file for name, check in c.formats.items() if name != ALWAYS]
    if not files:
        return ""
    size = f"[batch, {run.space.in_channels}, {arch.resolution}, {arch.resolution}]"
    takes = (
        f"uint8 images {size} and normalise them themselves"
        if c.with_preprocessing
        else f"float32 images {size}, divided by 255, minus `mean`, divided by `std` of `config.json`"
    )
    return f"""
`{"` and `".join(files)}` take {takes}.
Images of another size are to be resized before (bicubic, antialiased). ONNX: `input` → `logits`.
"""


def _origin(finetuned: Mapping[str, Any] | None) -> str:
    if finetuned and finetuned["kept"] == "finetuned":
        return "Its weights were fine-tuned from the supernet's, with batch-norm statistics recalibrated for them."
    tried = "fine-tuning was tried and did\nnot improve on them." if finetuned else "it was not\nfine-tuned."
    return f"Its weights come from the supernet, with batch-norm statistics recalibrated for this architecture; {tried}"

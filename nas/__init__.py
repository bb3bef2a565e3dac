"""What to try and what people touch: strategies, store, search loop, export and the command line.

The public functions, imported when first used so that `import nas` stays light:
`train`, `search`, `search_run`, `resume_run`, `open_study`, `query_run`, `load_study`, `finetune_run`, `trust_run`,
`export_subnet`, `export_front`, `load`, `push`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Run": "nas.run",
    "Study": "nas.study",
    "Trial": "nas.trial",
    "export_front": "nas.export.front",
    "export_subnet": "nas.export",
    "finetune_run": "nas.finetune",
    "load": "nas.loading",
    "load_study": "nas.study",
    "open_study": "nas.searching",
    "push": "nas.pushing",
    "query_run": "nas.querying",
    "resume_run": "nas.resuming",
    "search": "nas.study",
    "search_run": "nas.searching",
    "train": "nas.training",
    "trust_run": "nas.trust",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})

"""What `nas launch` and its like refuse or report where there is no cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.launching import check_visible
from nas.run import RunError

Nas = Callable[..., tuple[int, str, str]]


def test_missing_data_are_named(run_copy: Path, tmp_path: Path) -> None:
    check_visible(str(run_copy))
    check_visible("s3://bucket/run")
    description = json.loads((run_copy / "run.json").read_text())
    description["data"]["spec"] = f"folder:{tmp_path / 'photos'}"
    (run_copy / "run.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=f"has no {tmp_path / 'photos'}, the run's data set"):
        check_visible(str(run_copy))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-macs", "10k"], "macs ≤ 10k (nearest reachable: 312.6k)"),
        (["--max-macs", "lots"], "'lots' is not a quantity"),
        (["--n-trials", "0"], "greater than or equal to 1"),
        (["--n-trails", "9"], "No such option"),
        (["--strategy", "magic"], "unknown strategy 'magic'; valid: "),
        (["--objective", "accuracy"], "unknown metric 'accuracy'; valid: top1, macs, params"),
        (["--study-name", "../x"], "study name '../x' is not valid"),
        (["--score", "calibrated"], "nas trust"),
        (["--address", "head:6379"], "address is 'head:6379'; valid: http://host:port"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_what_the_search_would_refuse_is_refused_here(
    nas: Nas, trained_run: Path, options: list[str], message: str
) -> None:
    """Before any server is asked: there is none at this address."""
    code, out, err = nas("launch", trained_run, "--address", "http://127.0.0.1:1", *options)
    assert (code, out) == (2, "")
    assert message in err


def test_an_address_without_a_jobs_server_is_named(nas: Nas, trained_run: Path) -> None:
    for arguments in (["launch", trained_run], ["jobs"], ["logs", "x"], ["logs", "x", "-f"], ["stop", "x"]):
        code, out, err = nas(*arguments, "--address", "http://127.0.0.1:1")
        assert (code, out) == (1, "")
        assert err.startswith("error: no Ray jobs server answers at http://127.0.0.1:1: ")

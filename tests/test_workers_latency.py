"""Timing: what counts, in what order, and that what is timed is the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.catalog import SPACES
from search_spaces.plan import plan
from supernet.subnet import Subnet
from workers.latency import RUNTIMES, Setting, identity, measure, prepared, timing
from workers.ray_device import run_on

SPACE = SPACES["digits"]()
NET = Subnet(plan(SPACE, SPACE.smallest())).eval()


def test_calls_during_which_something_else_ran_do_not_count() -> None:
    quiet = [(1.0 + 0.001 * i, 1.0 + 0.001 * i) for i in range(20)]
    disturbed = [(5.0, 1.0), (1.3, 1.0)]
    found = timing([*quiet, *disturbed])
    assert (found.n, found.outliers) == (20, 2)
    assert found == timing(quiet).__class__(**{**vars(timing(quiet)), "outliers": 2})


def test_where_most_are_disturbed_the_least_disturbed_count() -> None:
    found = timing([(1.0 + 0.1 * i, 1.0) for i in range(40)])
    assert (found.n, found.outliers) == (10, 30)
    assert found.median_ms == pytest.approx(1.45)


def test_networks_take_turns_and_all_get_as_many() -> None:
    order: list[str] = []
    found = measure([lambda: order.append("a"), lambda: order.append("b")], seconds=0)
    assert "".join(order) == "aaaabbbb" * 5
    assert [time.n + time.outliers for time in found] == [15, 15]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_timed_is_the_network(runtime: str) -> None:
    shape = (3, 1, 8, 8)
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    with prepared(Setting(runtime, threads=2), [(NET, shape)]) as (call,):
        assert torch.get_num_threads() == 2
        given = np.asarray(call())
    assert torch.get_num_threads() == threads
    torch.manual_seed(0)
    with torch.no_grad():
        expected = NET(torch.randn(shape)).numpy()
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tvm"}, "unknown runtime 'tvm'; valid: torch, onnxruntime"),
        ({"device": "tpu"}, "unknown device 'tpu'; valid: cpu, cuda"),
        ({"threads": 0}, "threads is 0; valid: an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size is 1.5; valid"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting(**options)


def test_a_gpu_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="this machine has no GPU"), prepared(Setting(device="cuda"), []):
        pass


def test_a_function_runs_on_the_node_with_the_resource(ray_address: str) -> None:
    here = identity(Setting())
    assert run_on("pi", lambda: identity(Setting()), 1, ray_address) == here
    with pytest.raises(ValueError, match=r"no node of the cluster has the resource 'jetson'; there are: pi$"):
        run_on("jetson", dict, 1, ray_address)
    with pytest.raises(ZeroDivisionError):
        run_on("pi", lambda: 1 / 0, 1, ray_address)

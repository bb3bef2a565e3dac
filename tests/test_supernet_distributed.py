"""Two gloo processes train what one process trains: same architectures, same weights; they stop and fail together."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import warm_python

from nas import cli, cli_train, training
from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from supernet import datasets
from supernet.batches import train_batches
from supernet.data import prepare
from supernet.distributed import ALONE, RankError, Ranks, joined
from supernet.fit import Hooks, fit
from supernet.model import Supernet
from supernet.recipe import TrainConfig
from supernet.sync_norm import LostRankError, global_batch_norm, together
from supernet.train import SpikeError, Trainer

ROOT = Path(__file__).parent.parent
TINY = NetworkSpace("tiny", (Stage((1, 2), (4, 8), (1, 3)), Stage((1,), (8,), (3,))), 1, 1, 8, 10)
CONFIG = TrainConfig(epochs=1, batch_size=240, lr=0.1, dropout=0.0, seed=3)
RECIPES = {
    "sandwich": replace(CONFIG, sampler="best_up"),
    "chunked": replace(CONFIG, step_plan="chunked", num_random=3, distillation="none", mixup=0.0),
}
STEPS = 3
CLOSE = {torch.float32: (1e-4, 2e-5), torch.float64: (0.0, 1e-12)}  # relative, absolute


def trainer_of(config: TrainConfig, ranks: Ranks, space: NetworkSpace = TINY) -> Trainer:
    torch.manual_seed(config.seed)
    data = prepare(datasets.load("digits"), seed=0)
    trainer = Trainer(Supernet(space), data, config, "cpu", ranks=ranks)
    trainer.autocast = nullcontext  # bf16 would hide what fp32 shows
    return trainer


def train(config: TrainConfig, ranks: Ranks, dtype: torch.dtype) -> dict[str, Any]:
    """Weights after some steps, the metrics of the last, and the architectures of all."""
    trainer, archs = trainer_of(config, ranks), []
    trainer.supernet.to(dtype)
    chosen = trainer._subnets
    trainer._subnets = lambda *batch: archs.append(chosen(*batch)) or archs[-1]
    batches = train_batches(trainer.data, config.images_per_step, config.seed, 0, 0, trainer.rows)
    for _, images, labels in (next(batches) for _ in range(STEPS)):
        metrics = trainer.train_step(images.to(dtype), labels)
    keys = [[(s.arch.key, s.role, s.part) for s in step] for step in archs]
    return {"weights": trainer.supernet.state_dict(), "metrics": metrics, "archs": keys}


def normalised(x: torch.Tensor, batch_norm: Any) -> dict[str, torch.Tensor]:
    """What a batch norm computes of rows with a mean far from 0, and its gradients under a loss that weighs them."""
    x = x.clone().requires_grad_()
    mean, var = torch.zeros(3), torch.ones(3)
    weight, bias = torch.full((3,), 1.5, requires_grad=True), torch.ones(3, requires_grad=True)
    out = batch_norm(x, mean, var, weight, bias, training=True)
    (out * x.detach().sin()).sum().backward()
    grads = {"x": x.grad, "weight": weight.grad, "bias": bias.grad}
    return {"out": out.detach(), "mean": mean, "var": var} | {k: g for k, g in grads.items() if g is not None}


def rows_to_normalise() -> torch.Tensor:
    return torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 100


def stopped_and_resumed(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Rank 1 alone asks to stop after two steps; a new trainer goes on to the end."""
    path, metrics = folder / "checkpoint.safetensors", folder / "metrics.jsonl"
    config = replace(CONFIG, dropout=0.2, regularize_biggest_only=False)
    first = trainer_of(config, ranks)
    stopped = fit(first, path, metrics, Hooks(should_stop=lambda: ranks.rank == 1 and first.step == 2))
    second = trainer_of(config, ranks)
    second.restore(path)
    step = second.step
    finished = fit(second, path, metrics)
    whole = trainer_of(config, ranks)
    (folder / "whole").mkdir(exist_ok=True)
    fit(whole, folder / "whole" / path.name, folder / "whole" / metrics.name)
    equal = all(torch.equal(t, whole.supernet.state_dict()[n]) for n, t in second.supernet.state_dict().items())
    return {"stopped": stopped, "step": step, "finished": finished, "equal": equal}


def caught(kind: type[Exception], act: Any) -> str:
    try:
        act()
    except kind as error:
        return str(error)
    return "nothing was raised"


def nan_on_rank_1(ranks: Ranks) -> None:
    trainer = trainer_of(CONFIG, ranks)
    images = torch.full((120, 1, 8, 8), float("nan") if ranks.rank == 1 else 0.5)
    trainer.train_step(images, torch.zeros(120, dtype=torch.int64))


def work(rank: int, port: int, place: str) -> None:
    folder = Path(place)
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    with joined("cpu") as ranks:
        found: dict[str, Any] = {
            f"{name} {dtype}": train(config, ranks, dtype) for name, config in RECIPES.items() for dtype in CLOSE
        }
        found["norm"] = normalised(rows_to_normalise()[:7] if rank == 0 else rows_to_normalise()[7:], global_batch_norm)
        shared = folder / "run"
        shared.mkdir(exist_ok=True)
        found["resumed"] = stopped_and_resumed(shared, ranks)
        found["nan"] = caught(SpikeError, lambda: nan_on_rank_1(ranks))
        other = trainer_of(CONFIG, ranks, TINY if rank == 0 else catalog.get("digits"))
        found["space"] = caught(RankError, other.require_agreement)
        found["divisible"] = caught(ValueError, lambda: trainer_of(replace(CONFIG, batch_size=127), ranks))
    torch.save(found, folder / f"rank{rank}.pt")


def leave(rank: int, port: int, place: str) -> None:
    """Rank 0 ends without a word once both have met; what rank 1 then raises."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}

    def meet_and_wait() -> None:
        ranks.wait()
        if rank == 0:
            os._exit(0)
        ranks.wait()

    with joined("cpu") as ranks:
        said = caught(LostRankError, meet_and_wait)
        (Path(place) / "said").write_text(said)
        assert caught(LostRankError, lambda: normalised(rows_to_normalise(), global_batch_norm)) == said


def run_both(function: str, folder: Path) -> None:
    """Calls the function of this module in two processes, with a rank, a port and the folder."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = f"import sys, test_supernet_distributed as t; t.{function}(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    processes = [
        subprocess.Popen([warm_python.python(), "-c", code, str(rank), str(port), str(folder)], env=environment)
        for rank in range(2)
    ]
    try:
        assert [process.wait(300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()  # one waits for the other where that has failed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both processes of one run of `work` found."""
    folder = tmp_path_factory.mktemp("ranks")
    run_both("work", folder)
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    return first, second


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", RECIPES)
def test_two_ranks_train_what_one_process_trains(ranks, name, dtype):
    """In double precision, which hides no mistake behind rounding, to its last digits."""
    alone, (rtol, atol) = train(RECIPES[name], ALONE, dtype), CLOSE[dtype]
    first, second = (found[f"{name} {dtype}"] for found in ranks)
    assert first["archs"] == second["archs"] == alone["archs"]
    for key, tensor in alone["weights"].items():
        torch.testing.assert_close(
            first["weights"][key], tensor, rtol=rtol, atol=atol, msg=lambda text, key=key: f"{key}: {text}"
        )
        assert torch.equal(first["weights"][key], second["weights"][key]), key
    torch.testing.assert_close(first["metrics"], alone["metrics"], rtol=1e-4, atol=1e-5)


def test_a_batch_norm_over_unequal_ranks_is_that_of_the_whole_batch(ranks):
    whole, parts = normalised(rows_to_normalise(), F.batch_norm), [found["norm"] for found in ranks]
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], rtol=1e-4, atol=1e-4)
    for name in ("mean", "var"):
        torch.testing.assert_close(parts[0][name], whole[name])


def test_one_rank_that_is_asked_stops_all_and_a_resumed_run_is_the_uninterrupted_one(ranks):
    for found in ranks:
        assert found["resumed"] == {"stopped": False, "step": 2, "finished": True, "equal": True}


def test_a_loss_that_is_not_finite_on_one_rank_is_a_spike_on_all(ranks):
    assert ranks[0]["nan"] == ranks[1]["nan"]
    assert "is not finite at step 0" in ranks[0]["nan"]


def test_ranks_that_train_different_spaces_are_named(ranks):
    for found in ranks:
        assert "ranks that disagree on the space, weights: rank 1 and rank 0" in found["space"]


def test_a_rank_whose_partner_has_ended_says_so(tmp_path):
    run_both("leave", tmp_path)
    assert (tmp_path / "said").read_text() == "rank 1 waits in vain for another, which has ended: see its message"


def end_group_and_fail() -> None:
    dist.destroy_process_group()
    raise RuntimeError("connection closed")


def test_a_group_that_ends_while_a_rank_waits_counts_as_a_lost_partner():
    """Ray Train ends it from another thread when a rank has died: no ValueError, which would look like bad input."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with pytest.raises(LostRankError, match=r"^rank 0 waits in vain"), together():
        end_group_and_fail()
    with pytest.raises(LostRankError, match=r"^a rank waits in vain"):
        Ranks(0, 2).wait()
    with pytest.raises(LostRankError, match=r"^a rank waits in vain"):
        normalised(rows_to_normalise(), global_batch_norm)


def test_every_rank_checks_the_settings_before_it_waits_for_others(monkeypatch, tmp_path):
    """A process that joined would wait for a rank 0 that is not there."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="unknown sampler 'bset'"):
        training.train("digits", "digits", tmp_path / "run", sampler="bset")
    with pytest.raises(ValueError, match="--num-workers 2 starts workers on Ray, but this is one of 2 processes"):
        cli_train._training(2, None)


def test_a_stray_rank_without_a_world_size_is_no_rank(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert training.is_main_process()
    with joined("cpu") as ranks:
        assert ranks == ALONE


def test_a_batch_that_cannot_be_dealt_equally_is_refused(ranks):
    assert ranks[0]["divisible"] == "a batch of 127 images is not divisible by 2 ranks"
    with pytest.raises(ValueError, match="a batch of 240 images in 3 parts is not divisible by 32 ranks"):
        Ranks(0, 32).rows(240, 3)


def test_the_shares_of_each_part_make_up_the_batch():
    shares = [Ranks(rank, 2).rows(12, 3).view(3, 2) for rank in range(2)]
    assert torch.equal(torch.cat(shares, 1), torch.arange(12).view(3, 4))
    assert ALONE.rows(12, 3) is None


def test_of_ranks_that_were_stopped_one_says_how_to_go_on(nas, monkeypatch):
    def stopped() -> None:
        raise training.Interrupted("stopped at step 3 of 9")

    monkeypatch.setattr(cli, "app", stopped)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", "stopped at step 3 of 9\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert nas("train", "-o", "run", "--resume") == (130, "", said)

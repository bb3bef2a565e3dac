"""`nas trust` on a run without weights, on a full disk, where a training diverges and where a file was edited."""

from __future__ import annotations

import json

import pytest
from trusts import N

import nas.trust
from nas.trust import trust_run
from supernet.checkpoint import CheckpointError
from supernet.train import TrainingError


@pytest.mark.parametrize("metrics", [{"latency_ms": 1.0}, {"top1": 5.0}])
def test_a_score_that_was_edited_out_or_is_none_is_read_again(trusted_copy, metrics):
    expected = json.loads((trusted_copy / "trust.json").read_text())
    file = trusted_copy / "evaluations.jsonl"
    first, *others = map(json.loads, file.read_text().splitlines())
    file.write_text("".join(json.dumps(line) + "\n" for line in (first | {"metrics": metrics}, *others)))
    assert trust_run(trusted_copy, archs=N, epochs=1, device="cpu") == expected


def test_a_training_that_diverges_names_its_architecture(run_copy, monkeypatch):
    monkeypatch.setattr("supernet.standalone.learning_rate", lambda config, step, total: 1e30)
    with pytest.raises(TrainingError, match=rf"architecture 1 of {N}, .*: the gradient .* another seed may do"):
        trust_run(run_copy, archs=N, epochs=1, device="cpu")


def test_nothing_is_trained_that_could_not_be_written(run_copy, monkeypatch):
    monkeypatch.setattr(nas.trust, "ROOM", 2**62)
    with pytest.raises(OSError, match=f"No space left on device: '{run_copy}/trust/epochs1-seed0'"):
        trust_run(run_copy, archs=N, epochs=1, device="cpu", on_record=lambda record: pytest.fail("it was trained"))


def test_a_run_without_a_checkpoint_says_how_to_train_it(run_copy):
    for file in run_copy.glob("checkpoint.safetensors*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=f"has no checkpoint .*nas train -o {run_copy} --resume"):
        trust_run(run_copy, archs=N, epochs=1, device="cpu")

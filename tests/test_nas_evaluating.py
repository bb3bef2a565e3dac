"""Which evaluator a search has changes its time, not its history."""

from __future__ import annotations

import shutil
from pathlib import Path

from search_cases import history

from nas.evaluating import BATCH, evaluator_spec
from nas.run import Run
from nas.searching import search_run
from supernet.evaluators import EVALUATORS


def test_every_evaluator_gives_the_same_study(trained_run: Path, tmp_path: Path) -> None:
    studies = []
    for name in EVALUATORS:
        run = Path(shutil.copytree(trained_run, tmp_path / name))  # one of its own, for a run shares its evaluations
        studies.append(search_run(run, n_trials=12, num_workers=0, strategy="evolution", evaluator=name))
        assert all(trial.worker != "cache" for trial in studies[-1].trials)
    assert [history(study.trials) for study in studies] == [history(studies[0].trials)] * len(EVALUATORS)


def test_a_study_goes_on_with_another_evaluator(run_copy: Path) -> None:
    search_run(run_copy, n_trials=2, num_workers=0, evaluator="reference")
    assert len(search_run(run_copy, n_trials=4, num_workers=0, worker_memory=1e6).trials) == 4


def test_the_fast_evaluator_is_handed_batches_and_a_gpu_has_the_reference(trained_run: Path) -> None:
    run = Run.open(trained_run)
    assert evaluator_spec(run)[0].batch == BATCH > 1
    assert evaluator_spec(run, evaluator="reference")[0].batch == 1
    assert evaluator_spec(run, "cuda")[0].batch == 1

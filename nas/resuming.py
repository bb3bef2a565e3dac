"""`resume_run`: continues a study of a run with the settings that the study itself records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.profiles import kept
from nas.run import Run, RunError
from nas.searching import is_stale, read_run_study, search_run

if TYPE_CHECKING:
    from nas.identity import Identity
    from nas.loop import Outcome
    from nas.store import StoredStudy
    from nas.study import Study
    from nas.trial import Trial


def resume_run(
    run: Run | str | Path,
    study_name: str = "default",
    *,
    n_trials: int | None = None,
    num_workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float | None = None,
    evaluation_timeout: float | None = None,
    address: str = "local",
    on_trial: Callable[[Trial], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Study:
    """Continues a study of `search_run` by strategy, seed, limits, objectives, lookahead and score as it has them.

    n_trials: trials in all; by default as many as were last asked for. A study that has them already, or all that there
    are, is returned as it is. num_gpus: of each worker; by default one where the study was scored on GPUs. The other
    parameters, and what is raised beside RunError for an unknown study, for one that says no number of trials, and for
    one that was searched on weights that the run no longer has: `search_run`.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    stored = read_run_study(run, study_name)
    identity = stored.identity
    require_current(run, identity)
    n_trials = n_trials_of(stored) if n_trials is None else n_trials
    if len(stored.trials) >= n_trials or stored.exhausted:
        from nas.study import Study

        outcome: Outcome = "exhausted" if len(stored.trials) < n_trials else "finished"
        return Study(identity.objectives, identity.limits, stored.trials, outcome)
    return search_run(
        run,
        n_trials=n_trials,
        study_name=study_name,
        strategy=identity.strategy,
        limits=identity.limits,
        objectives=list(identity.objectives),
        num_workers=num_workers,
        num_cpus=num_cpus,
        num_gpus=float("device" in identity.context) if num_gpus is None else num_gpus,
        evaluation_timeout=evaluation_timeout,
        score=identity.context.get("score", "inherited"),
        profiles=kept(run, identity.context),
        seed=identity.seed,
        lookahead=identity.lookahead,
        address=address,
        on_trial=on_trial,
        stop=stop,
    )


def require_current(run: Run, identity: Identity) -> None:
    """Raises RunError where the study was searched on weights that the run no longer has."""
    if is_stale(run, identity.context):
        raise RunError(
            f"study {identity.study_name!r} was searched on weights that {run} no longer has (trained further since) "
            "and cannot go on; search with another --study-name"
        )


def n_trials_of(stored: StoredStudy) -> int:
    """How many trials the study was last asked to have. Raises RunError where it does not say."""
    if stored.n_trials is None:
        name = stored.identity.study_name
        raise RunError(f"study {name!r} does not say how many trials it is to have; say it with --n-trials")
    return stored.n_trials

"""Where a study is kept: an Optuna study on a journal file, whatever the strategy, so that Optuna's tools open it.

One process writes, any number read, and readers need no writer. Trials enter finished and in order, one line of the
journal each, so a killed writer loses at most the line it was writing.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.identity import Identity
from nas.journal import JournalError, JournalReader, JournalWriter
from nas.optuna_logging import quiet_optuna
from nas.problem import Problem, are_metrics
from nas.trial import Trial
from search_spaces.network import NetworkSpace
from search_spaces.space import ChoiceSpace, Space

_IDENTITY, _UID, _N_TRIALS, _EXHAUSTED = "nas", "nas_uid", "nas_n_trials", "nas_exhausted"


class StudyError(ValueError):
    """A study cannot be opened: it differs from what was asked for, is missing, foreign, or in use. Says which."""


@dataclass(frozen=True)
class StoredStudy:
    """What a reader gets of a study: its identity, its space, and its trials in order of number.

    n_trials: how many were last asked for; None where the study does not say. exhausted: whether a search found no
    further architecture within the limits than these.
    """

    identity: Identity
    space: Space[Any]
    trials: list[Trial]
    n_trials: int | None = None
    exhausted: bool = False


class MemoryStore:
    """Keeps the trials of a search that needs no file."""

    def __init__(self) -> None:
        self.uid = uuid4().hex
        self._trials: list[Trial] = []

    @property
    def trials(self) -> Sequence[Trial]:
        """Every trial so far."""
        return self._trials

    def append(self, trial: Trial) -> None:
        """Records the next trial."""
        self._trials.append(trial)

    def exhaust(self) -> None:
        """Does nothing: the search itself says so."""

    def close(self) -> None:
        """Does nothing."""


class JournalStore:
    """The one writer of a study; `read_study` reads without writing.

    Creates the study, or continues it where it exists with the same identity. A last line that a killed writer left
    unfinished is cut off, which is logged as a warning. Raises StudyError when another process is writing, when the
    study differs from `identity`, or when the file is no journal.
    n_trials: how many trials are asked for, kept beside the identity for whoever continues the study.
    """

    def __init__(self, path: Path | str, identity: Identity, space: Space[Any], n_trials: int | None = None) -> None:
        path = Path(path)
        try:
            self._journal = JournalWriter(path)
        except JournalError as error:
            raise StudyError(str(error)) from None
        try:
            with _reading(path):
                self._study = _create_or_load(path, JournalStorage(self._journal), identity)
                self._trials = _trials(self._study, space, identity)
                self.uid: str = self._study.user_attrs[_UID]
            if n_trials not in (None, self._study.user_attrs.get(_N_TRIALS)):
                self._study.set_user_attr(_N_TRIALS, n_trials)
        except BaseException:
            self.close()
            raise
        self._space, self._objectives = space, list(identity.objectives)
        self._distributions = {gene.name: CategoricalDistribution(gene.choices) for gene in space.genes}

    @property
    def trials(self) -> Sequence[Trial]:
        """Every trial recorded so far."""
        return self._trials

    def append(self, trial: Trial) -> None:
        """Writes the next trial. Raises OSError when the disk is full."""
        genes = self._space.genes
        complete = trial.state == "complete"
        now = datetime.now()
        record = FrozenTrial(  # `optuna.create_trial` converts every distribution anew, at twice the time of the rest
            number=-1,
            trial_id=-1,  # as there: Optuna numbers it when it is added
            state=TrialState.COMPLETE if complete else TrialState.FAIL,
            value=None,
            values=[trial.metrics[name] for name in self._objectives] if complete else None,
            datetime_start=now - timedelta(seconds=trial.seconds),
            datetime_complete=now,
            params={gene.name: gene.choices[i] for gene, i in zip(genes, self._space.encode(trial.arch))},
            distributions=self._distributions,  # type: ignore[arg-type]
            user_attrs={
                "number": trial.number,
                "key": trial.arch.key,
                "arch": trial.arch.to_dict(),
                "metrics": dict(trial.metrics),
                "worker": trial.worker,
                "seconds": trial.seconds,
                "error": trial.error,
            },
            system_attrs={"constraints": list(trial.constraints.values())},  # the form that optuna-dashboard reads
            intermediate_values={},
        )
        for name, excess in trial.constraints.items():
            record.set_constraint(name, excess)
        self._study.add_trial(record)
        self._journal.stop_reading()  # Optuna has to see the first record it writes, and no other
        self._trials.append(trial)

    def exhaust(self) -> None:
        """Records that there is no further architecture, for whoever asks why the study has fewer trials than asked.

        As the number of trials that there are, so that it lapses where a later search finds one all the same.
        """
        if self._study.user_attrs.get(_EXHAUSTED) != len(self._trials):
            self._study.set_user_attr(_EXHAUSTED, len(self._trials))

    def close(self) -> None:
        """Lets another process write."""
        self._journal.close()


def read_study(path: Path | str, study_name: str | None = None, space: Space[Any] | None = None) -> StoredStudy:
    """Reads a study while it may be written to; a last line that is not finished yet is left out.

    study_name: may be omitted where the file holds one study. space: rebuilt from the study when omitted.
    Raises StudyError when there is no such study, or listing the names when there are several.
    """
    with _opened(path) as storage:
        names = optuna.get_all_study_names(storage)
        if study_name is None and len(names) == 1:
            study_name = names[0]
        if study_name not in names:
            asked = "name one of its studies" if study_name is None else f"it holds no study {study_name!r}"
            raise StudyError(f"{path}: {asked}; studies: {', '.join(names) or 'none'}")
        return _stored(Path(path), storage, study_name, space)


def read_studies(path: Path | str) -> list[StoredStudy]:
    """Every study of a file, in order of name, read as `read_study` does. Raises StudyError where there is none."""
    with _opened(path) as storage:
        names = sorted(optuna.get_all_study_names(storage))
        if not names:
            raise StudyError(f"{path} holds no study")
        return [_stored(Path(path), storage, name) for name in names]


@contextmanager
def _opened(path: Path | str) -> Iterator[JournalStorage]:
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"there is no study file {path}")
    with _reading(path):
        yield JournalStorage(JournalReader(path))


def _stored(path: Path, storage: JournalStorage, study_name: str, space: Space[Any] | None = None) -> StoredStudy:
    study = _load(storage, study_name)
    if _IDENTITY not in study.user_attrs:
        raise StudyError(f"{path}: study {study_name!r} was not made by this project")
    identity = Identity(**study.user_attrs[_IDENTITY])
    if space is None:
        space = space_from_dict(identity.space)
    problem = Problem(space, identity.objectives, identity.limits)  # raises ValueError where these are none
    identity = replace(identity, limits=problem.limits)
    trials, attrs = _trials(study, space, identity), study.user_attrs
    return StoredStudy(identity, space, trials, attrs.get(_N_TRIALS), attrs.get(_EXHAUSTED) == len(trials))


def space_from_dict(data: Mapping[str, Any]) -> Space[Any]:
    """The space that `Space.to_dict()` described."""
    if "choices" in data:
        return ChoiceSpace(data["choices"], data["name"])
    return NetworkSpace.from_dict(data)


def _load(storage: JournalStorage, study_name: str) -> optuna.Study:
    return optuna.load_study(study_name=study_name, storage=storage, sampler=optuna.samplers.RandomSampler())


def _create_or_load(path: Path, storage: JournalStorage, identity: Identity) -> optuna.Study:
    name = identity.study_name
    if name not in optuna.get_all_study_names(storage):
        with quiet_optuna():
            storage.create_new_study([StudyDirection[d.upper()] for d in identity.objectives.values()], name)
    study = _load(storage, name)
    known = study.user_attrs.get(_IDENTITY)
    if known is None and study.get_trials(deepcopy=False):
        raise StudyError(f"{path}: study {name!r} was not made by this project")
    if known is None:
        _describe(study, identity)
    elif study.get_trials(deepcopy=False):
        require_same(path, identity, known)
    elif identity.differences(known):  # of a search that failed to start
        storage.delete_study(storage.get_study_id_from_name(name))
        return _create_or_load(path, storage, identity)
    return study


def require_same(path: Path, identity: Identity, known: Mapping[str, Any]) -> None:
    """Raises StudyError naming the differences where `identity` is not `known`, that of the study."""
    if differences := identity.differences(known):
        raise StudyError(
            f"{path}: study {identity.study_name!r} exists and is another search: {'; '.join(differences)}. "
            "Choose another study name, or the same settings to continue it."
        )


def _describe(study: optuna.Study, identity: Identity) -> None:
    """Writes the identity last, so that a study which has one is completely described."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(identity.objectives))
    study.set_user_attr(_UID, uuid4().hex)
    study.set_user_attr(_IDENTITY, asdict(identity))


def _trials(study: optuna.Study, space: Space[Any], identity: Identity) -> list[Trial]:
    """Raises ValueError for a record that is missing, doubled or changed: a number means one trial for ever."""
    trials = [_trial(record, space, identity.limits) for record in study.get_trials(deepcopy=False)]
    first: dict[str, int] = {}
    for number, trial in enumerate(trials):
        if trial.number != number:
            raise ValueError(f"trial {number} is missing or doubled")
        if first.setdefault(trial.arch.key, number) != number:
            raise ValueError(f"trial {number} has the architecture of trial {first[trial.arch.key]}")
        if not are_metrics(trial.metrics) or not all(isinstance(v, int | float) for v in trial.constraints.values()):
            raise ValueError(f"trial {number} has a metric that is no finite number: {dict(trial.metrics)}")
        if trial.state == "complete" and not set(identity.objectives) <= set(trial.metrics):
            raise ValueError(f"trial {number} lacks an objective, of {', '.join(identity.objectives)}")
    return trials


def _trial(record: FrozenTrial, space: Space[Any], limited: Collection[str]) -> Trial:
    attrs = record.user_attrs
    return Trial(
        number=attrs.get("number", record.number),  # which the first studies did not write
        arch=space.arch_from_dict(attrs["arch"]),
        state="complete" if record.state == TrialState.COMPLETE else "failed",
        metrics=attrs["metrics"],
        constraints={name: value for name, value in record.constraints.items() if name in limited},
        worker=attrs["worker"],
        seconds=attrs["seconds"],
        error=attrs["error"],
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (StudyError, OSError):
        raise
    except Exception as error:  # whatever Optuna and the space raise at a record that is not as it was written
        raise StudyError(f"{path} is not a study file, or is damaged: {type(error).__name__}: {error}") from error

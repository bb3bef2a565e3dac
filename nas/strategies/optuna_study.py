"""The private study that Optuna's samplers see. Apart from the strategies, so that their names cost no import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from nas.optuna_logging import quiet_optuna
from nas.problem import Problem
from nas.trial import Trial
from search_spaces.space import Gene

_NAME = "private"
_PROPOSAL = -1  # the id that `create_trial` gives to what is in no storage


class PrivateStudy:
    """Completed trials in the order told, by index of choice: ordered genes as integers, the others as categories.

    sampler: makes one from a seed. seed: of what a genetic sampler decides once a generation.
    """

    def __init__(self, problem: Problem, sampler: Callable[[int], BaseSampler], seed: int) -> None:
        self._problem, self._sampler, self._seed = problem, sampler, seed
        self._genes = {gene.name: _distribution(gene) for gene in problem.space.genes if len(gene.choices) > 1}
        self._storage = _Storage()
        with quiet_optuna():
            self._storage.create_new_study([StudyDirection[d.upper()] for d in problem.objectives.values()], _NAME)
        self._any, self._completed = sampler(0), 0  # any sampler of the kind

    def add(self, trial: Trial) -> None:
        """Adds a completed trial."""
        space = self._problem.space
        indices = {gene.name: i for gene, i in zip(space.genes, space.encode(trial.arch))}
        record = create_trial(
            values=[trial.metrics[name] for name in self._problem.objectives],
            params={name: indices[name] for name in self._genes},
            distributions=self._genes,
            constraints=dict(trial.constraints),
            system_attrs=self._generation(),
        )
        self._load().add_trial(record)
        self._completed += 1

    def draws(self, seed: int) -> Iterator[dict[str, int]]:
        """What a new sampler proposes, time and again: index of choice by gene, without what it leaves open."""
        study, sampler = self._load(), self._sampler(seed)
        proposal = create_trial(state=TrialState.RUNNING, system_attrs=self._generation())
        while True:
            yield sampler.sample_relative(study, proposal, self._genes) if self._genes else {}

    def _load(self) -> optuna.Study:
        """A new one each time, because a study object goes on showing its samplers the trials they saw first."""
        study = optuna.Study(_NAME, self._storage, sampler=self._any)
        for generation in self._generation().values():  # chosen now, or the first to ask would spend its seed on it
            self._sampler(self._seed).get_parent_population(study, generation)  # type: ignore[attr-defined]
        return study

    def _generation(self) -> dict[str, Any]:
        """For a genetic sampler: completed trials enter generations in order, so it does not matter who asked when."""
        if not isinstance(self._any, BaseGASampler):
            return {}
        assert self._any.population_size is not None
        return {self._any._get_generation_key(): self._completed // self._any.population_size}


class _Storage(InMemoryStorage):
    """Ignores what a sampler notes about a proposal, which is no trial of the study yet."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id != _PROPOSAL:
            super().set_trial_system_attr(trial_id, key, value)


def _distribution(gene: Gene) -> BaseDistribution:
    n = len(gene.choices)
    return IntDistribution(0, n - 1) if gene.ordered else CategoricalDistribution(range(n))

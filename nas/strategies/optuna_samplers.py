"""Optuna's samplers as strategies: TPE, Gaussian processes, NSGA-II and NSGA-III.

A sampler keeps no state here: for each trial to propose a new one is made with a seed of its own, and shown a private
study that holds the trials told so far. So its proposals are as reproducible as those of our own strategies.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.optuna_logging import quiet_optuna
from nas.problem import Problem
from nas.strategies.base import Strategy
from nas.trial import Trial
from search_spaces.arch import ArchLike
from search_spaces.space import Gene

_NAME = "private"
_MUTANTS = 5  # of each draw
_PROPOSAL = -1  # the id that `create_trial` gives to what is in no storage


class OptunaStrategy(Strategy):
    """Proposals of an Optuna sampler over the genes: ordered ones as integers, the others as categories.

    What the sampler leaves open, such as everything before it has trials enough, is drawn uniformly. Failed trials
    teach it nothing; trials beyond a limit on an evaluated metric enter with their constraints.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self._genes = {gene.name: _distribution(gene) for gene in problem.space.genes if len(gene.choices) > 1}
        self._storage = _Storage()
        directions = [StudyDirection[direction.upper()] for direction in problem.objectives.values()]
        with quiet_optuna():
            self._storage.create_new_study(directions, _NAME)
        self._any, self._completed = self.sampler(0), 0  # any sampler of the kind

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """A new sampler."""

    def tell(self, trial: Trial) -> None:
        """Shows a completed trial to the sampler."""
        if trial.state != "complete":
            return
        values = [trial.metrics[name] for name in self.problem.objectives]
        self._load_study().add_trial(self._record(trial, values))
        self._completed += 1

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """What the sampler draws, brought within the limits, and mutants of it, for it may insist on what was tried."""
        space, sampler = self.problem.space, self.sampler(int(rng.integers(2**32)))
        study = self._load_study()
        proposal = create_trial(state=TrialState.RUNNING, system_attrs=self._generation())
        while True:
            drawn = sampler.sample_relative(study, proposal, self._genes) if self._genes else {}
            sample = space.encode(space.sample(rng))
            arch = space.decode([int(drawn.get(gene.name, i)) for gene, i in zip(space.genes, sample)])
            arch = self.repaired(arch, rng)
            yield arch
            for _ in range(_MUTANTS):
                yield space.mutate(arch, rng)

    def _load_study(self) -> optuna.Study:
        """A new one each time, because a study object goes on showing its samplers the trials they saw first."""
        study = optuna.Study(_NAME, self._storage, sampler=self._any)
        for generation in self._generation().values():  # chosen now, or the first to ask would spend its seed on it
            self.sampler(self.seed % 2**32).get_parent_population(study, generation)  # type: ignore[attr-defined]
        return study

    def _record(self, trial: Trial, values: list[float]) -> FrozenTrial:
        indices = {gene.name: i for gene, i in zip(self.problem.space.genes, self.problem.space.encode(trial.arch))}
        return create_trial(
            values=values,
            params={name: indices[name] for name in self._genes},
            distributions=self._genes,
            constraints=dict(trial.constraints),
            system_attrs=self._generation(),
        )

    def _generation(self) -> dict[str, Any]:
        """For a genetic sampler: completed trials enter generations in order, so it does not matter who asked when."""
        if not isinstance(self._any, BaseGASampler):
            return {}
        assert self._any.population_size is not None
        return {self._any._get_generation_key(): self._completed // self._any.population_size}


class TPEStrategy(OptunaStrategy):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate as in BOHB (Falkner et al. 2018)."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(multivariate=True, seed=seed)


class GPStrategy(OptunaStrategy):
    """Bayesian optimisation with a Gaussian process. An ask costs seconds after a few hundred trials; imports torch."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return GPSampler(seed=seed)


class NSGAIIStrategy(OptunaStrategy):
    """Generational NSGA-II (Deb et al. 2002) with uniform crossover."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        return NSGAIISampler(seed=seed)


class NSGAIIIStrategy(OptunaStrategy):
    """NSGA-III (Deb and Jain 2014), made for three objectives and more."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return NSGAIIISampler(seed=seed)


class _Storage(InMemoryStorage):
    """Ignores what a sampler notes about a proposal, which is no trial of the study yet."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id != _PROPOSAL:
            super().set_trial_system_attr(trial_id, key, value)


def _distribution(gene: Gene) -> BaseDistribution:
    n = len(gene.choices)
    return IntDistribution(0, n - 1) if gene.ordered else CategoricalDistribution(range(n))

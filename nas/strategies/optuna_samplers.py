"""Optuna's samplers as strategies: TPE, Gaussian processes, NSGA-II and NSGA-III.

A sampler keeps no state here: for each trial to propose a new one is made with a seed of its own, and shown a private
study that holds the trials told so far. So its proposals are as reproducible as those of our own strategies.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nas.problem import Problem
from nas.strategies.base import Strategy
from nas.trial import Trial
from search_spaces.arch import ArchLike

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

_MUTANTS = 5  # of each draw


class OptunaStrategy(Strategy):
    """Proposals of an Optuna sampler over the genes: ordered ones as integers, the others as categories.

    What the sampler leaves open, such as everything before it has trials enough, is drawn uniformly. Failed trials
    teach it nothing; trials beyond a limit on an evaluated metric enter with their constraints.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        from nas.strategies.optuna_study import PrivateStudy  # which imports Optuna

        self._study = PrivateStudy(problem, self._quiet_sampler, seed % 2**32)

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """A new sampler."""

    def tell(self, trial: Trial) -> None:
        """Shows a completed trial to the sampler."""
        if trial.state == "complete":
            self._study.add(trial)

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """What the sampler draws, brought within the limits, and mutants of it, for it may insist on what was tried."""
        space = self.problem.space
        for drawn in self._study.draws(int(rng.integers(2**32))):
            sample = space.encode(space.sample(rng))
            arch = space.decode([int(drawn.get(gene.name, i)) for gene, i in zip(space.genes, sample)])
            arch = self.repaired(arch, rng)
            yield arch
            for _ in range(_MUTANTS):
                yield space.mutate(arch, rng)

    def _quiet_sampler(self, seed: int) -> BaseSampler:
        from optuna.exceptions import ExperimentalWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self.sampler(seed)


class TPEStrategy(OptunaStrategy):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate as in BOHB (Falkner et al. 2018)."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        from optuna.samplers import TPESampler

        return TPESampler(multivariate=True, seed=seed)


class GPStrategy(OptunaStrategy):
    """Bayesian optimisation with a Gaussian process. An ask costs about a second after 500 trials; imports torch."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        from optuna.samplers import GPSampler

        return GPSampler(seed=seed)


class NSGAIIStrategy(OptunaStrategy):
    """Generational NSGA-II (Deb et al. 2002) with uniform crossover."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed)


class NSGAIIIStrategy(OptunaStrategy):
    """NSGA-III (Deb and Jain 2014), made for three objectives and more."""

    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's, with its defaults."""
        from optuna.samplers import NSGAIIISampler

        return NSGAIIISampler(seed=seed)

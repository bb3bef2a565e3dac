"""What the subnets of a study's front take on this device: a limit in milliseconds is checked on the real thing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from nas.json_file import write_json
from nas.profiles import Profile, ProfileError, kept
from nas.run import Run
from search_spaces.arch import Arch
from search_spaces.limits import Limit, bounds

if TYPE_CHECKING:
    from nas.study import Study
    from nas.trial import Trial

SECONDS = 10.0  # of measuring, for each device


def measure_front(run: Run, study_name: str, study: Study) -> list[str]:
    """Measures the front's architectures that were not yet, for each profile of the study that is of this device.

    The times are kept in the run. Returns for each profile of another device why nothing was measured.
    """
    from nas.searching import read_run_study

    left_out = []
    profiles = kept(run, read_run_study(run, study_name).identity.context)
    for profile in profiles:
        known = measured(run, study_name)
        new = [trial for trial in study.front() if profile.identity not in known.get(trial.arch.key, {})]
        if not new:
            continue
        try:
            times = measure_trials(profile, new)
        except ProfileError as error:
            left_out.append(str(error))
            continue
        for trial, time in zip(new, times):
            known.setdefault(trial.arch.key, {})[profile.identity] = time
        with run.publishing():
            file = run.path / _file(study_name)
            file.parent.mkdir(exist_ok=True)
            write_json(file, known)
    return left_out


def measure_trials(profile: Profile, trials: Sequence[Trial], seconds: float = SECONDS) -> list[dict[str, Any]]:
    """Milliseconds of whole subnets, as `workers.latency.Timing` has them.

    Raises ProfileError naming what differs where this machine is not the profile's device.
    """
    from nas.profiling import measure_archs
    from workers.latency import RuntimeUnavailableError, Setting, identity, require

    settings = {name: profile.device[name] for name in ("runtime", "device", "threads", "batch_size")}
    setting = Setting(**settings)
    try:
        require(setting)
    except RuntimeUnavailableError as error:
        raise ProfileError(f"the device profile {profile.name!r} cannot be checked here: {error}") from None
    for name, value in identity(setting).items():
        if value != profile.device[name]:
            raise ProfileError(
                f"the device profile {profile.name!r} is of another device: its {name} is {profile.device[name]!r}, "
                f"here it is {value!r}"
            )
    archs = [cast(Arch, trial.arch) for trial in trials]
    return [asdict(timing) for timing in measure_archs(profile.space, setting, archs, seconds)]


def measured(run: Run, study_name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Times by an architecture's key and a profile's identity; empty where nothing was measured."""
    try:
        return dict(json.loads(run.fetch(_file(study_name)).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def of_front(run: Run, study_name: str, study: Study) -> dict[int, dict[str, float]]:
    """Measured milliseconds by number and metric, such as `{7: {"latency_ms": 2.4}}`, of the front's trials."""
    from nas.searching import read_run_study

    times = measured(run, study_name)
    if not times:
        return {}
    identities = read_run_study(run, study_name).identity.context
    found = {}
    for trial in study.front():
        of_arch = times.get(trial.arch.key, {})
        metrics = {name: of_arch[i]["median_ms"] for name, i in identities.items() if i in of_arch}
        if metrics:
            found[trial.number] = metrics
    return found


def over_budget(limits: Mapping[str, Limit], times: Mapping[str, float]) -> list[str]:
    """The metrics whose measured milliseconds are beyond their limit."""
    return [name for name, ms in times.items() if name in limits and ms > bounds(limits[name])[1]]


def _file(study_name: str) -> str:
    return f"latency/{study_name}.json"

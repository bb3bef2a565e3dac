"""Options of the charts: right, bounded in size whatever the study, and told by differences."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nas import pareto
from nas.service.pages import charts, devices, layout, space
from nas.service.pages.front import FrontChart
from nas.trial import Trial
from search_spaces.arch import ChoiceArch

OBJECTIVES = {"top1": "maximize", "macs": "minimize"}


def trials(n: int, limit: float = math.inf, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        macs = float(rng.uniform(1e6, 50e6))
        top1 = float(np.clip(0.4 + 0.1 * math.log10(macs / 1e5) + rng.normal(0, 0.03), 0, 1))
        failed = rng.random() < 0.02
        made.append(Trial(
            i, ChoiceArch((("n", i),)), "failed" if failed else "complete",
            {"macs": macs} if failed else {"top1": top1, "macs": macs},
            {"macs": macs / limit - 1} if math.isfinite(limit) else {}, "w", 0.1,
        ))  # fmt: skip
    return made


def points(options: charts.Options, name: str) -> set[int]:
    return {p[2] for s in options["series"] if s.get("name") == name and s["type"] == "scatter" for p in s["data"]}


def apply(shown: dict, changed: list[charts.Options]) -> None:
    """What ECharts does with series that have an id."""
    for series in changed:
        shown[series["id"]] = series


def test_the_front_is_the_studys_own():
    study = trials(300, limit=30e6)
    chart = FrontChart("macs", "top1", OBJECTIVES, {"macs": 30e6}, study)
    front = {t.number for t in pareto.front(study, OBJECTIVES)}
    assert points(chart.options(), "Pareto front") == front
    assert points(chart.options(), "over a limit") == {
        t.number for t in study if t.state == "complete" and not t.feasible
    }
    shown = [points(chart.options(), name) for name in ("Pareto front", "evaluated", "over a limit")]
    assert sum(map(len, shown)) == sum(t.state == "complete" for t in study)


@pytest.mark.parametrize("step", [1, 7, 100])
def test_differences_lead_to_the_same_picture(step):
    study = trials(400, limit=30e6)
    chart = FrontChart("macs", "top1", OBJECTIVES, {}, study[:50])
    shown = {series["id"]: series for series in chart.options()["series"]}
    for n in range(50, 401, step):
        apply(shown, chart.add(study[:n]))
    apply(shown, chart.add(study))
    whole = FrontChart("macs", "top1", OBJECTIVES, {}, study).options()
    for name in ("Pareto front", "evaluated", "over a limit"):
        assert points({"series": list(shown.values())}, name) == points(whole, name)


def test_nothing_new_is_no_difference():
    study = trials(20)
    assert FrontChart("macs", "top1", OBJECTIVES, {}, study).add(study) == []


def test_limits_are_drawn_and_in_view():
    chart = FrontChart("macs", "top1", OBJECTIVES, {"macs": (2e6, 90e6)}, trials(50))
    options = chart.options()
    limits = next(s for s in options["series"] if s["id"] == "limits")
    assert [mark["xAxis"] for mark in limits["markLine"]["data"]] == [2.0, 90.0]
    assert [x for x, _ in limits["data"]] == [2.0, 90.0]


def test_a_large_study_is_small_on_the_wire():
    study = trials(10_000, limit=40e6)
    chart = FrontChart("macs", "top1", OBJECTIVES, {"macs": 40e6}, study[:9_900])
    drawn = sum(len(points(chart.options(), name)) for name in ("Pareto front", "evaluated", "over a limit"))
    assert drawn < 5_000
    assert len(json.dumps(chart.options())) < 200_000
    assert len(json.dumps(chart.add(study))) < 60_000


def test_a_front_over_any_two_metrics():
    study = [
        Trial(i, ChoiceArch((("n", i),)), "complete", {"top1": 0.5, "macs": m, "params": p}, {}, "w", 0.1)
        for i, (m, p) in enumerate([(1, 9), (2, 5), (3, 7), (4, 1)])
    ]
    chart = FrontChart("macs", "params", OBJECTIVES, {}, study)
    assert [t.number for t in chart.front] == [0, 1, 3]


def test_an_empty_study_has_a_chart():
    assert points(FrontChart("macs", "top1", {}, {}, []).options(), "evaluated") == set()


def test_units():
    assert charts.Unit("macs", 20e6).label == "MACs (M)"
    assert charts.Unit("macs", 20e6)(12_345_678) == 12.346
    assert charts.Unit("top1")(0.7129) == 71.29
    assert charts.Unit("latency_ms_pi").label == "latency on pi (ms)"
    assert charts.show("weight_bytes", 1.86e6) == "1.86MB"
    assert charts.show("top1", None) == "–"


def test_thinned_keeps_the_ends():
    values = [None, None, *(float(i) for i in range(10_000))]
    kept = charts.thinned(values)
    assert len(kept) <= charts.MOST_POINTS
    assert kept[0] == [3, 0.0]
    assert kept[-1] == [10_002, 9999.0]


def test_a_distribution_counts_all():
    options = space.distribution([1e6, 2e6, 4e6, 8e6], [2e6])
    assert [round(sum(s["data"])) for s in options["series"]] == [100, 100]
    assert [s["name"] for s in space.distribution([1e6, 2e6], [])["series"]] == ["random members"]


def test_links_are_quoted():
    assert layout.link("search", "a~b", 'x"/<') == "/search/a~b/x%22%2F%3C"
    assert layout.link("new", run="a&b", clone=None) == "/new?run=a%26b"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (5.4, "5 s"), (90, "1 min 30 s"), (3700, "1 h 1 min"), (300_000, "3 days")]
)
def test_durations(seconds, text):
    assert layout.duration(seconds) == text


def test_devices_of_this_machine():
    gpu, *others = devices.parse_gpus("NVIDIA A, B, 1024, 2048, 37\nbroken\nC, [N/A], 1, 2\n")
    assert gpu == devices.Device("NVIDIA A, B", 2.0**30, 2.0**31, 0.37)
    assert others == []
    for device in devices.processors():
        assert 0 < device.memory_used < device.memory_total

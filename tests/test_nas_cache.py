"""The evaluation cache: shared between processes, whole again after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from broken_files import no_space, replace_file

from nas.cache import EvaluationCache


def test_the_cache_is_shared_between_processes_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "evaluations"
    first, second = EvaluationCache(path, "abc"), EvaluationCache(path, "abc")
    first.put("a", {"top1": 0.1 + 0.2})
    assert second.get("a") == {"top1": 0.1 + 0.2}
    second.put("b", {"top1": 1.0})
    assert first.get("b") == {"top1": 1.0}
    assert EvaluationCache(path, "abc").get("a") == {"top1": 0.1 + 0.2}
    assert EvaluationCache(path, "another checkpoint").get("a") is None
    assert first.get("c") is None


def test_a_torn_line_of_the_cache_is_skipped_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "evaluations"
    cache = EvaluationCache(path)
    cache.put("a", {"top1": 1.0})
    kept = path.stat().st_size
    cache.put("b", {"top1": 2.0})
    data = path.read_bytes()
    for size in range(kept, len(data)):
        replace_file(path, data[:size])
        reader, writer = EvaluationCache(path), EvaluationCache(path)
        assert reader.get("b") is None
        writer.put("c", {"top1": 3.0})
        assert reader.get("c") == {"top1": 3.0}
        assert EvaluationCache(path).get("a") == {"top1": 1.0}
        assert EvaluationCache(path).get("b") in (None, {"top1": 2.0})  # whole but for its line end
    assert [json.loads(line)["key"] for line in data.splitlines()] == ["a", "b"]


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_is_an_error_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    cache = EvaluationCache(tmp_path / "evaluations")
    monkeypatch.setattr(os, "write", no_space(os.write, room))
    with pytest.raises(OSError, match="evaluation cache: the disk is full"):
        cache.put("a", {"top1": 1.0})


def test_a_cache_without_a_file() -> None:
    cache = EvaluationCache()
    cache.put("a", {"top1": 1.0})
    assert cache.get("a") == {"top1": 1.0}
    assert cache.get("b") is None
    cache.close()

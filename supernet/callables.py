"""Functions of the user's own, named as `FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION`.

A module of no package is named by its file: what has neither a dot nor a slash before its colon is something else,
such as the reader of a data set.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

USAGE = "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"


class FunctionError(ValueError):
    """A function that cannot be found, or failed; the message names it, and the line."""


def is_function(spec: str) -> bool:
    """Whether `spec` is written as one of these functions, whether it exists or not."""
    place, colon, _ = spec.partition(":")
    return bool(colon) and ("." in place or "/" in place)


def absolute(spec: str) -> str:
    """`spec` with an absolute path where it names a file, so that it can be used from any folder."""
    place, _, name = spec.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{name}" if place.endswith(".py") else spec


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `spec` names; its file, or module, is run for that.

    Modules are looked for in the working directory, too, and what a file imports also beside it.
    Raises FunctionError when there is none, or when running the file fails.
    """
    place, _, name = spec.rpartition(":")
    module = _run(spec, place)
    function = getattr(module, name, None)
    if not callable(function):
        found = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise FunctionError(f"{place} has no function {name!r}; it has {', '.join(found) or 'none'}")
    return function


def call(spec: str, function: Callable[..., Any], **arguments: Any) -> Any:
    """What `function`, named by `spec`, returns. Raises FunctionError naming its line when it raises anything."""
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        code = getattr(function, "__code__", None)
        raise FunctionError(f"{spec} failed: {_described(error, code.co_filename if code else None)}") from error


def run_file(path: Path) -> ModuleType:
    """A Python file as a module of its own, run anew and without leaving bytecode; raises whatever that raises."""
    name = f"nas_file_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses, pickle and TorchScript look a class's module up there
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _run(spec: str, place: str) -> ModuleType:
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise FunctionError(f"there is no file {place}; a function is named as {USAGE}")
    if not is_file and not all(part.isidentifier() for part in place.split(".")):
        raise FunctionError(f"{spec!r} names no function; write {USAGE}")
    folder = str(Path(place).resolve().parent) if is_file else os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # last: nothing there takes the place of what is installed
    try:
        return run_file(Path(place)) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:  # a script ends by sys.exit()
        if isinstance(error, ModuleNotFoundError) and error.name and f"{place}.".startswith(f"{error.name}."):
            advice = "start where it can be imported, name its file instead, or set PYTHONPATH"
            raise FunctionError(f"there is no module {place!r} in {folder} or installed: {advice}") from None
        raise FunctionError(f"{place} cannot be imported: {_described(error, place)}") from error


def _described(error: BaseException, file: str | None) -> str:
    """Kind, text and place of an error: the innermost line of `file` where there is one."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    places = [f" ({f.filename}:{f.lineno})" for f in [f for f in frames if f.filename == file] or frames]
    return f"{type(error).__name__}: {error}{places[-1] if places else ''}"

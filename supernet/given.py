"""Data sets that a function of the user's own returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from supernet.arrays import OPTIONS, PAIRS, SINGLE, array_names, raw_from_arrays
from supernet.callables import FunctionError, call, load_function
from supernet.data import DataError, RawData
from supernet.folders import few

_VALID = f"valid: {', '.join(PAIRS)}, or {', '.join(SINGLE)}; and, if wanted, {' and '.join(OPTIONS)}"


def read_function(spec: str) -> RawData:
    """What the function returns, called without arguments: a mapping of the arrays of an .npz file.

    They are anything that numpy makes arrays of, see ``supernet.arrays.raw_from_arrays``. ``classes``, the class names,
    and ``flip``, a bool, may be there, too.

    Raises:
        DataError: there is no such function, it fails, or what it returns is something else.
    """
    try:
        returned = call(spec, load_function(spec))
    except FunctionError as error:
        raise DataError(str(error)) from error
    if not isinstance(returned, Mapping):
        raise DataError(f"{spec} returned a {type(returned).__name__}, not a mapping; {_VALID}")
    names = array_names(set(returned))
    if not names:
        raise DataError(f"{spec} returned {few(returned) or 'nothing'}; {_VALID}")
    if other := [name for name in returned if name not in (*names, *OPTIONS)]:
        raise DataError(f"{spec} returned {other[0]!r} beside {', '.join(names)}; {_VALID}")
    arrays = {name: _array(spec, name, returned[name]) for name in names}
    return raw_from_arrays(spec, arrays, **{key: returned.get(key) for key in OPTIONS})


def _array(spec: str, name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:  # lists of unequal lengths, tensors on a GPU, …
        raise DataError(f"{spec}: {name} is a {type(value).__name__} that numpy makes no array of ({error})") from error

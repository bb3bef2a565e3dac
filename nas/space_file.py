"""Spaces in YAML files: every complaint names file, line and field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search_spaces.fields import FieldError, FieldPath
from search_spaces.network import NetworkSpace

ANY_SIZE = 1 << 12  # pixels, at which the choices are checked before the data is known


@dataclass(frozen=True)
class SpaceFile:
    """Where the fields of a space stand."""

    path: Path
    root: yaml.Node

    def error(self, error: FieldError) -> ValueError:
        """The same complaint with file and line."""
        return ValueError(f"{self.path}:{self._line(error.path)}: {error}")

    def _line(self, path: FieldPath) -> int:
        """The line, from 1, of a field, or of the innermost thing around it that is there."""
        node, line = self.root, self.root.start_mark.line
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == part]
                if not found:
                    break
                line, node = found[-1][0].start_mark.line, found[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line
        return line + 1


def read_space(path: Path) -> tuple[Mapping[str, Any], SpaceFile]:
    """The fields of the space in `path`, all valid but for what depends on the data, and where they stand.

    Raises ValueError naming file, line and field.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        fields: Any = None if root is None else loader.construct_document(root)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the space {path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply for a space") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(f"{path}{f':{mark.line + 1}' if mark else ''}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # no date, for one
        raise ValueError(f"{path}: not YAML: {error}") from None
    if root is None:
        raise ValueError(f"{path} is empty; valid: the fields of a space, such as name and stages")
    _check_once(path, root)
    file = SpaceFile(path, root)
    try:
        sized = isinstance(fields, Mapping) and not fields.get("resolutions")
        NetworkSpace.from_dict({"image_size": ANY_SIZE, **fields} if sized else fields)
    except FieldError as error:
        raise file.error(error) from None
    return fields, file


def _check_once(path: Path, root: yaml.Node) -> None:
    """Refuses a mapping with a key twice, of which YAML's reader would silently keep the last."""
    nodes, met = [root], {id(root)}
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                    raise ValueError(f"{path}:{line}: {key.value} was given already, in line {lines[key.value]}")
        inner = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
        new = [n for n in inner if isinstance(n, yaml.Node) and id(n) not in met]
        met.update(map(id, new))
        nodes += new

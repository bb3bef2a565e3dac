"""Reading the folder of an exported model without running the code in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from supernet.subnet import Subnet


class ExportedError(ValueError):
    """A folder that is no exported model, or not one that this can be done with; the message names it."""


@dataclass(frozen=True)
class Exported:
    """What a folder of `nas export` holds: the space, the architecture, and the network with its weights."""

    space: NetworkSpace
    arch: Arch
    subnet: Subnet
    config: dict[str, Any]


def read_exported(folder: Path) -> Exported:
    """The model in `folder`, from `config.json` and `model.safetensors`.

    Raises ExportedError naming what is missing or malformed.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        space = NetworkSpace.from_dict(config["space"])
        arch = space.arch_from_dict(config["arch"])
        subnet = Subnet(plan(space, arch))
        subnet.load_state_dict(load_file(folder / "model.safetensors"))
    except OSError as error:
        raise ExportedError(f"{folder} is no exported model ({error})") from None
    except KeyError as error:
        raise ExportedError(f"{folder / 'config.json'} is not that of an exported model: it lacks {error}") from None
    except RuntimeError as error:
        raise ExportedError(f"{folder / 'model.safetensors'} has not the weights of its config.json") from error
    except (TypeError, ValueError, SafetensorError) as error:
        raise ExportedError(f"{folder} is not an exported model that this version can read: {error}") from None
    return Exported(space, arch, subnet, config)

"""`nas push`: an exported model as a repository on the Hugging Face Hub. Needs the extra `hub`, and no torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from nas.loading import require_model


class PushError(ValueError):
    """What cannot be pushed, or not to there; the message says why."""


class HubError(RuntimeError):
    """The Hub could not be reached, or refused; the message holds its answer."""


@dataclass(frozen=True)
class Pushed:
    """A model on the Hub: where it is, its commit, and its files."""

    repo: str
    url: str
    commit: str
    files: list[str]


def push(folder: str | Path, to: str) -> Pushed:
    """Uploads an exported folder to the Hub's model repository `to`, which is made where there is none.

    Everything in the folder goes there in one commit, certificate and card included, but for hidden files and Python's
    caches. The Hub is asked as the user who `hf auth login` or HF_TOKEN names; HF_ENDPOINT is another Hub's address.
    Raises LoadError for a folder that is no exported model, PushError for one that failed its checks, for a name that
    is none, and where huggingface_hub is missing; HubError when the Hub cannot be reached or refuses.
    """
    folder = Path(folder).resolve()
    require_model(folder)
    _require_sound(folder)
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HTTPError
    except ImportError:
        raise PushError("pushing needs huggingface_hub: pip install 'nas-service[hub]'") from None
    _check_name(to)
    api, files = HfApi(), _files(folder)
    try:
        url = api.create_repo(to, exist_ok=True)
        added = [CommitOperationAdd(name, folder / name) for name in files]
        done = api.create_commit(url.repo_id, added, commit_message=f"Upload {folder.name}")
    except HTTPError as error:
        raise HubError(_explained(error, to, api.endpoint)) from error
    return Pushed(url.repo_id, str(url), done.oid, files)


def _check_name(to: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(to)
    except HFValidationError as error:
        raise PushError(f"{to!r} is no name of a repository, ORG/NAME: {error}") from None
    if "/" not in to:
        raise PushError(f"{to!r} is no name of a repository; valid: ORG/NAME, such as me/{to}")


def _explained(error: Exception, to: str, endpoint: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return f"the Hub at {endpoint} cannot be reached: {error}"
    if error.response.status_code in (401, 403):
        return (
            f"the Hub refused {to}: {error}; log in with `hf auth login`, or set HF_TOKEN, as one who may write there"
        )
    return f"the Hub refused {to}: {error}"


def _require_sound(folder: Path) -> None:
    """Refuses what `nas export` kept of a model that failed its checks, under whatever name."""
    from nas.export import Certificate

    file = folder / "certificate.json"
    try:
        failures = Certificate.from_dict(json.loads(file.read_text(encoding="utf-8"))).failures()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PushError(f"{file} is no certificate of an exported model ({error})") from None
    if failures or re.search(r"\.failed\d*$", folder.name):
        reason = "; ".join(failures) or "as its name says"
        raise PushError(f"the model in {folder} failed its checks and is not pushed: {reason}")


def _files(folder: Path) -> list[str]:
    """What to upload, as paths in the folder."""
    inside = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [p.as_posix() for p in inside if not any(part.startswith(".") or part == "__pycache__" for part in p.parts)]

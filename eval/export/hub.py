"""Upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bimodal_cl.errors import ServerFailed, UserError, one_line
from bimodal_cl.models.locate.hub import is_repository


def check_repository(repository: str) -> None:
    """Check a repository's name and that the hub knows its user, before the model is loaded.

    Raises:
        UserError: not of the form ``OWNER/NAME``, or no token of the hub is stored.
    """
    from huggingface_hub import get_token

    if not is_repository(repository):
        raise UserError(f"--push-to-hub: a repository is OWNER/NAME, got '{repository}'")
    if get_token() is None:
        raise UserError("--push-to-hub: no token of the hub: run 'hf auth login', or set HF_TOKEN")


def push_folder(folder: Path, repository: str, replaced: Mapping[str, bytes], private: bool = False) -> str:
    """Upload a folder in one commit; the repository is made where it is missing.

    Args:
        folder: an exported folder.
        repository: ``OWNER/NAME``.
        replaced: the content of files that differ from those of the folder, by their path in it.
        private: make a new repository private.

    Returns:
        The address of the repository.

    Raises:
        UserError: the hub refuses the token or the name.
        ServerFailed: the hub cannot be reached or fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=replaced.get(name, path)) for name, path in files.items()
    ]
    api = HfApi()
    what, again = f"--push-to-hub {repository}", f"{folder} is complete: give --overwrite to try again"
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message="Upload the model with bimodal-eval export")
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        answer = f"{status}, {' '.join((error.server_message or '').split()) or 'without a reason'}"
        if status in (400, 401, 403, 404, 409):
            raise UserError(f"{what}: the hub refused it ({answer}); {again}") from error
        raise ServerFailed(f"{what}: the hub failed ({answer}); {again}") from error
    except Exception as error:
        raise ServerFailed(f"{what}: the upload failed ({one_line(error)}); {again}") from error
    return str(url)

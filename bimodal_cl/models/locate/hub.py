"""Download a model from the Hugging Face hub, or find it in the hub's cache."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.weights.file_names import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    TOKENIZER_FILES,
    TRANSFORMERS_WEIGHTS,
)

_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_OTHER_FILES = (*TOKENIZER_FILES, "special_tokens_map.json", "added_tokens.json", "merges.txt", "tokenizer.model")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class NotFetched(UserError):
    """A model is neither in the hub's cache nor can it be downloaded; ``reason`` says why in a few words."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what} {reason}")
        self.reason = reason


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a hub repository, ``ORGANISATION/NAME``."""
    return bool(_REPOSITORY.fullmatch(name)) and not name.startswith(".")


def fetch_repository(repository: str, what: str, check_config: Callable[[Path], None]) -> Path:
    """Return the cache folder with a model's configuration, weights and tokenizer, after downloading what is missing.

    Args:
        repository: ``ORGANISATION/NAME``, optionally ``@REVISION``.
        what: the model, for messages.
        check_config: called with transformers' ``config.json`` before weights are downloaded, to refuse it.

    Raises:
        UserError: the hub has no such model, or cannot be reached and the cache does not hold it.
    """
    files = _Repository(repository)
    try:
        config = files.get(OPEN_CLIP_CONFIG) or files.get("config.json")
        if config is None and (adapter := files.get("adapter_config.json")) is not None:
            return adapter.parent
        if config is None:
            raise files.refusal(what, f"{OPEN_CLIP_CONFIG} or config.json")
        if config.name == "config.json":
            check_config(config)
        weights = _fetch_weights(files, open_clip=config.name == OPEN_CLIP_CONFIG)
        if weights is None:
            raise files.refusal(what, "weights in safetensors or PyTorch format")
    except UserError:
        raise
    except Exception as error:
        raise NotFetched(what, f"cannot be fetched from the hub: {why_not_fetched(error)}") from error
    has_preprocessor = [files.get(name) is not None for name in _PREPROCESSOR_FILES]
    if weights.name not in OPEN_CLIP_WEIGHTS and not any(has_preprocessor) and files.unreachable is not None:
        warnings.warn(
            f"{what}: the cache has no preprocessor_config.json, and {files.unreachable}: CLIP's is used",
            stacklevel=2,
        )
    for name in _OTHER_FILES:
        files.get(name)
    return weights.parent


def _fetch_weights(files: _Repository, open_clip: bool) -> Path | None:
    """Return the first weights that exist; of sharded weights, the index, after fetching all shards."""
    for name in (*(OPEN_CLIP_WEIGHTS if open_clip else ()), *TRANSFORMERS_WEIGHTS):
        if (found := files.get(name)) is None:
            continue
        if name in TRANSFORMERS_WEIGHTS and files.get("config.json") is None:
            continue
        if name.endswith(".index.json"):
            for shard in sorted(set(json.loads(found.read_text("utf-8"))["weight_map"].values())):
                if files.get(shard) is None:
                    return None
        return found
    return None


class _Repository:
    """The files of one repository; after the hub could not be reached once, only the cache is used."""

    def __init__(self, name: str) -> None:
        self.name, _, revision = name.partition("@")
        self._revision = revision or None
        self.unreachable: str | None = None

    def get(self, file: str) -> Path | None:
        """Return a file's path in the cache, or None where the repository (or, offline, the cache) has no such file."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        cache_alone = self.unreachable is not None
        try:
            return Path(hf_hub_download(self.name, file, revision=self._revision, local_files_only=cache_alone))
        except LocalEntryNotFoundError as error:
            self.unreachable = self.unreachable or why_not_fetched(error)
        except EntryNotFoundError:
            pass
        return None

    def refusal(self, what: str, missing: str) -> UserError:
        """Return the error to raise for a missing file."""
        if self.unreachable is None:
            return UserError(f"{what}: the hub's repository has no {missing}")
        return NotFetched(what, f"is not in the cache ({_cache()}) and cannot be fetched: {self.unreachable}")


def why_not_fetched(error: BaseException) -> str:
    """Return in plain words why a download from the hub, or from another server, failed."""
    from huggingface_hub import errors

    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    plain: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
        (errors.OfflineModeIsEnabled, "offline mode is on (HF_HUB_OFFLINE)"),
        (errors.GatedRepoError, "its terms must be accepted on the hub first, and 'hf auth login' called"),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or it is private: 'hf auth login'"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.RemoteEntryNotFoundError, "the repository has no such file"),
        (errors.HFValidationError, "not a valid repository name"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached"),
        ((ConnectionError, TimeoutError), "the server cannot be reached"),
    )
    for kind, words in plain:
        if any(isinstance(each, kind) for each in seen):
            return "offline mode is on (HF_HUB_OFFLINE)" if _is_offline() and "reached" in words else words
    return one_line(error)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)

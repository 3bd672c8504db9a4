"""Write a folder in a hidden sub-folder first, and move its content into place when it is complete.

An interrupted or failed run leaves the folder as it was. The next run deletes what a killed run left under
``.partial`` and writes everything again, since the source may have changed in between.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bimodal_cl.data.shards.manifest import MANIFEST_NAME
from bimodal_cl.errors import UserError
from bimodal_cl.files.locks import locked
from bimodal_cl.files.text_files import read_text

PARTIAL = ".partial"
OWN_SHARD = re.compile(r"[0-9]{5,}\.tar")  # the writer's names; a killed run can leave such shards without a manifest


@contextlib.contextmanager
def staged(target: Path, job: Mapping[str, object], splits: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write in; on success, move its content to ``target``, manifests last.

    Args:
        target: the folder to fill; it is created if missing, and removed again if nothing is written.
        job: the job as JSON values; an interrupted run of the same job may be repeated even if it had finished some
            of the splits.
        splits: sub-folders with a manifest ("" for the target itself).
        overwrite: replace finished splits: the shards that the old manifest lists, and those named as ours. Other
            files stay.

    Raises:
        UserError: a split is finished or holds tars of unknown origin, the target cannot be written, or another run
            is writing to it.
    """
    existed = target.exists()
    partial = target / PARTIAL
    with writable(target), locked(target):
        if not overwrite and _left_job(partial) != job:
            refuse_occupied(target, splits)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            (partial / "job.json").write_text(json.dumps(job, sort_keys=True))
            content = partial / "content"
            content.mkdir()
            yield content
            _publish(content, target, splits)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if not existed:
                with contextlib.suppress(OSError):  # it is not empty
                    target.rmdir()


def refuse_occupied(target: Path, splits: Sequence[str]) -> None:
    """Raise ``UserError`` if a split has a manifest, or tars that this command may not have written."""
    for split in splits:
        folder = target / split
        if (folder / MANIFEST_NAME).exists():
            raise UserError(f"{folder} is finished (it has a {MANIFEST_NAME}); give --overwrite to replace it")
        tars = sorted(path.name for path in folder.glob("*.tar"))
        if tars:
            raise UserError(
                f"{folder} holds {len(tars):,} tars without a {MANIFEST_NAME} ({tars[0]}, ...); choose another folder, "
                "or give --overwrite to replace those named like 00000.tar"
            )


def _publish(content: Path, target: Path, splits: Sequence[str]) -> None:
    files = sorted(path for path in content.rglob("*") if path.is_file())
    for split in splits:
        folder = target / split
        old_shards = _listed_shards(folder)
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        kept = {path.name for path in files if path.parent == content / split}
        for old in folder.glob("*.tar"):
            if old.name not in kept and (old.name in old_shards or OWN_SHARD.fullmatch(old.name)):
                old.unlink()
    for path in sorted(files, key=lambda path: path.name == MANIFEST_NAME):
        place = target / path.relative_to(content)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _listed_shards(folder: Path) -> set[str]:
    try:
        return {str(shard["name"]) for shard in json.loads(read_text(folder / MANIFEST_NAME))["shards"]}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _left_job(partial: Path) -> object:
    try:
        return json.loads((partial / "job.json").read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def writable(target: Path) -> Iterator[None]:
    """Make a folder, and report in one line that it cannot be written to.

    Raises:
        UserError: no permission, or a read-only disk.
        OSError: the disk is full; ``filename`` names the folder.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {target}: {error.strerror}") from None
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(target)
            raise
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"cannot write to {error.filename or target}: {error.strerror}") from None
        raise

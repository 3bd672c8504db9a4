"""Read what a manifest says about the shards to verify, and find faults of the manifest itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bimodal_cl.data.shards.manifest import CAPTIONS_MODES, MANIFEST_NAME, CaptionsMode, Manifest, Shard
from bimodal_cl.data.storage.locations import is_remote
from bimodal_cl.errors import UserError
from bimodal_cl.files.tar_files import is_tar, list_tars
from bimodal_cl.files.text_files import read_text

from ..input_paths import note_other_shards, require_folder
from .shard_check import MANIFEST_KIND, Finding


@dataclass(frozen=True)
class Expected:
    """The shards of a data set as they should be.

    Args:
        names: names of all shards, in order.
        shards: entries of the manifest by name; empty without a usable manifest.
        captions: how texts are split.
        findings: what is wrong with the manifest or its folder.
    """

    names: list[str]
    shards: dict[str, Shard]
    captions: CaptionsMode
    findings: list[Finding]


def expect_shards(folder: Path, captions: CaptionsMode) -> Expected:
    """Read the manifest of a folder; without one, list its tars, with texts split as ``captions`` says.

    An unusable manifest is a finding. One that is well-formed but does not fit its shards is still compared with them,
    since this shows which shards are damaged.

    Raises:
        UserError: there is no such folder, or it holds neither a manifest nor a tar.
    """
    shards, mode, findings = _read_manifest(folder)
    if not shards:
        require_folder(folder)
        names = [path.relative_to(folder).as_posix() for path in list_tars(folder)]
        note_other_shards(folder)
        return Expected(names, shards, mode or captions, findings)
    for path in sorted(filter(is_tar, folder.iterdir())):
        if path.name not in shards:
            findings.append(Finding(MANIFEST_KIND, path.name, "", f"is not in {MANIFEST_NAME}"))
    return Expected(list(shards), shards, mode or captions, findings)


def _read_manifest(folder: Path) -> tuple[dict[str, Shard], CaptionsMode | None, list[Finding]]:
    path = folder / MANIFEST_NAME
    if not path.exists():
        return {}, None, []
    try:
        manifest = Manifest.load(folder)
        return {shard.name: shard for shard in manifest.shards}, manifest.captions, []
    except UserError as error:
        findings = [Finding(MANIFEST_KIND, MANIFEST_NAME, "", str(error).removeprefix(f"{path}: "))]
    try:
        content = json.loads(read_text(path))
        shards = {str(entry["name"]): Shard(**entry) for entry in content["shards"]}
        mode = content["captions"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}, None, findings
    if mode not in CAPTIONS_MODES or any(".." in Path(name).parts for name in shards):
        return {}, None, findings
    local = {folder / name: shard.bytes for name, shard in shards.items() if not is_remote(name)}
    if any(not file.is_file() or file.stat().st_size != size for file, size in local.items()):
        findings = []  # it is reported for the shard itself
    return shards, mode, findings

"""Read every byte of a folder of shards and say what is broken, by shard and key; write clean copies if asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bimodal_cl.data.decode import BadImage, decode_image
from bimodal_cl.data.manifest import CAPTIONS_MODES, MANIFEST_NAME, CaptionsMode, Manifest, Shard
from bimodal_cl.data.shard import IMAGE_EXTENSIONS, index_shard, split_captions
from bimodal_cl.errors import UserError
from bimodal_cl.progress import progress

from .captions import clean_captions
from .index import find_tars, map_shards
from .keys import KeyMaker
from .staging import staged
from .tar_file import TarWriter


@dataclass(frozen=True)
class Fault:
    """One thing that is broken; ``key`` is "" where it is not one sample's."""

    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.shard} {self.key}: {self.reason}" if self.key else f"{self.shard}: {self.reason}"


@dataclass
class ShardCheck:
    """What a shard holds (rows and captions, as the manifest counts them), its faults, and its clean copy if made."""

    num_images: int = 0
    num_texts: int = 0
    faults: list[Fault] = field(default_factory=list)
    clean: Shard | None = None


@dataclass(frozen=True)
class Sample:
    """A run of adjacent members with one key; ``members`` maps extensions (with dot, lower case) to bytes."""

    key: str
    members: dict[str, bytes]

    @property
    def image(self) -> tuple[str, bytes] | None:
        """Extension and bytes of the first image member."""
        return next(((ext, data) for ext, data in self.members.items() if ext in IMAGE_EXTENSIONS), None)


def verify_folder(
    folder: Path, workers: int | None = None, captions: CaptionsMode | None = None, repair_to: Path | None = None
) -> tuple[int, list[Fault]]:
    """Check manifest, hashes, tar structure, every image's pixels and every caption.

    Args:
        folder: the shards, with or without a manifest.
        workers: processes; None for one a core.
        captions: how texts are split where there is no manifest to say it; None for "whole".
        repair_to: write clean copies here: the same shards without the samples (or captions) that are broken, with a
            manifest of their own. Ids are those of the copy.

    Returns:
        The number of images, and the faults in order of shards.

    Raises:
        UserError: no such folder, nothing in it, or nothing of it is worth a copy.
    """
    expected, mode, faults = _expectations(folder)
    names = list(expected) or [path.name for path in find_tars(folder)]
    for path in sorted(folder.glob("*.tar")):
        if path.name not in names:
            faults.append(Fault(path.name, "", f"is not in {MANIFEST_NAME}"))
    check = partial(check_shard, folder, captions=mode or captions or "whole", expected=expected)
    if repair_to is None:
        checks = list(progress(map_shards(check, names, workers), len(names), "shards", "verify"))
    else:
        if repair_to.resolve() == folder.resolve():
            raise UserError(f"--to must be another folder than {folder}, which stays as it is")
        with staged(repair_to, {"repair": str(folder.resolve())}, [""], overwrite=False) as content:
            check = partial(check, clean_folder=content)
            checks = list(progress(map_shards(check, names, workers), len(names), "shards", "verify and repair"))
            clean = tuple(done.clean for done in checks if done.clean is not None)
            if not clean:
                raise UserError(f"no sample of {folder} is whole: nothing to copy")
            Manifest(folder=content, captions="lines", shards=clean).save()
    for done in checks:
        faults.extend(done.faults)
    return sum(done.num_images for done in checks), faults


def check_shard(
    folder: Path,
    name: str,
    captions: CaptionsMode,
    expected: Mapping[str, Shard],
    clean_folder: Path | None = None,
) -> ShardCheck:
    """Check the shard ``folder/name``, and write its good samples to ``clean_folder`` if one is given.

    After garbage or a truncation what stood before it is still checked and copied.
    """
    result = ShardCheck()
    path = folder / name
    if not path.is_file():
        result.faults.append(Fault(name, "", "is in the manifest but missing"))
        return result
    try:
        _check_file(path, name, captions, expected.get(name), result)
    except OSError as error:
        result.faults.append(Fault(name, "", f"cannot be read: {error.strerror}"))
        return result
    keys, seen = KeyMaker(), set()
    written = texts = 0
    with contextlib.ExitStack() as stack:
        tar = None
        if clean_folder is not None:
            tar = stack.enter_context(TarWriter(clean_folder / name.replace("/", "_")))
        for sample in read_samples(path):
            members, count = _check_sample(name, sample, captions, result)
            if sample.key in seen:
                result.faults.append(Fault(name, sample.key, "key occurs more than once"))
            seen.add(sample.key)
            if tar is not None and members is not None:
                tar.write_sample(keys.make(sample.key), members)
                written, texts = written + 1, texts + count
    if tar is not None and written:
        result.clean = Shard(tar.path.name, written, texts, tar.size, tar.sha256)
    elif tar is not None:
        tar.path.unlink()
    return result


def read_samples(path: Path) -> Iterator[Sample]:
    """Give the samples of a tar as :func:`bimodal_cl.data.shard.index_shard` groups them, up to the first damage."""
    key, members = "", {}  # type: ignore[var-annotated]
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="backslashreplace") as tar:
            for info in tar:
                name = info.name.removeprefix("./")
                stem, dot, extension = name.rpartition(".")
                if not info.isfile() or not dot or "/" in extension or name.rpartition("/")[2].startswith("."):
                    continue
                extension = f".{extension.lower()}"
                file = tar.extractfile(info)
                assert file is not None
                data = file.read()  # raises where the tar ends inside this member: half a caption is none
                if members and (stem != key or extension in members):
                    yield Sample(key, members)
                    members = {}
                key = stem
                members[extension] = data
    except (tarfile.TarError, EOFError, OSError):
        pass  # where and why is what index_shard has told
    if members:
        yield Sample(key, members)


def _check_file(path: Path, name: str, captions: CaptionsMode, expected: Shard | None, result: ShardCheck) -> None:
    def fault(reason: str) -> None:
        result.faults.append(Fault(name, "", reason))

    size = path.stat().st_size
    if expected and size != expected.bytes:
        fault(f"has {size:,} bytes, the manifest says {expected.bytes:,}")
    elif expected and expected.sha256:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != expected.sha256:
            fault("its bytes differ from what was written (sha256)")
    try:
        rows = index_shard(path, captions)
    except UserError as error:
        fault(str(error).removeprefix(f"shard {path}: "))
        return
    result.num_images, result.num_texts = len(rows), int(rows.caption_count.sum())
    if expected and (result.num_images, result.num_texts) != (expected.num_images, expected.num_texts):
        fault(
            f"holds {result.num_images:,} images and {result.num_texts:,} captions, "
            f"the manifest says {expected.num_images:,} and {expected.num_texts:,}"
        )


def _check_sample(
    shard: str, sample: Sample, captions: CaptionsMode, result: ShardCheck
) -> tuple[dict[str, bytes] | None, int]:
    """Add the sample's faults to the result; return the members of its clean copy (None: none) and its captions."""

    def fault(reason: str) -> None:
        result.faults.append(Fault(shard, sample.key, reason))

    image = sample.image
    if image is None:
        fault(f"has no image (only {', '.join(sample.members)})")
        return None, 0
    try:
        decode_image(image[1])
    except BadImage as error:
        fault(f"image {image[0]}: {error}")
        image = None
    text = sample.members.get(".txt")
    if text is None:
        fault("has no .txt")
        return None, 0
    good = text
    try:
        text.decode()
    except UnicodeDecodeError as error:
        fault(f"caption is not UTF-8 (byte {error.start})")
        lines = text.split(b"\n") if captions == "lines" else []
        good = b"\n".join(line for line in lines if _is_utf8(line))
    else:
        if not text.strip():
            fault("has no caption (its .txt is empty)")
    kept, _ = clean_captions(split_captions(good, captions))
    if image is None or not kept:
        return None, 0
    others = {ext: data for ext, data in sample.members.items() if ext not in (*IMAGE_EXTENSIONS, ".txt")}
    return {**others, image[0]: image[1], ".txt": "\n".join(kept).encode()}, len(kept)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _expectations(folder: Path) -> tuple[dict[str, Shard], CaptionsMode | None, list[Fault]]:
    """What the manifest says of each shard, and how it splits texts; nothing where there is no manifest.

    A manifest that cannot be used is a fault. One that is well-formed but does not fit its shards is still the
    measure of them, which is what tells the damaged ones from the others.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        return {}, None, []
    try:
        manifest = Manifest.load(folder)
        return {shard.name: shard for shard in manifest.shards}, manifest.captions, []
    except UserError as error:
        faults = [Fault(MANIFEST_NAME, "", str(error).removeprefix(f"{path}: "))]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = {str(entry["name"]): Shard(**entry) for entry in content["shards"]}
        mode = content["captions"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}, None, faults
    if mode not in CAPTIONS_MODES or any((folder / name).resolve().parent != folder.resolve() for name in expected):
        return {}, None, faults
    sizes = [(folder / name).stat().st_size if (folder / name).is_file() else -1 for name in expected]
    if any(size != shard.bytes for size, shard in zip(sizes, expected.values(), strict=True)):
        faults = []  # said of the shard itself
    return expected, mode, faults

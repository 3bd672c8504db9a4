"""Read every byte of one shard, report faults and oddities by key, and write a clean copy."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bimodal_cl.data.images.decode import BadImage, EncodedImage, open_encoded
from bimodal_cl.data.shards.faults import NOTED_KINDS, SHARD_KINDS, USED_KINDS
from bimodal_cl.data.shards.index import index_shard, split_captions
from bimodal_cl.data.shards.manifest import CaptionsMode, Shard
from bimodal_cl.data.shards.row_table import save_row_table
from bimodal_cl.data.storage.locations import is_remote, redact
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.data.tar.samples import TarSample, TarSamples, open_samples
from bimodal_cl.errors import UserError
from bimodal_cl.files.checksums import hash_files
from bimodal_cl.files.image_formats import EXTENSIONS_OF_FORMAT, IMAGE_EXTENSIONS, TEXT_EXTENSION, TEXT_EXTENSIONS

from ..writing.captions import clean_captions
from ..writing.image_bytes import EXTENSION_OF_FORMAT
from ..writing.keys import KeyMaker
from ..writing.tar_file import MAX_NAME, TarWriter, fits_header

MANIFEST_KIND = "manifest"


@dataclass(frozen=True)
class Finding:
    """One fault or oddity.

    Args:
        kind: a kind of :mod:`bimodal_cl.data.shards.faults`, or ``MANIFEST_KIND`` if shard and manifest differ.
        shard: the shard's name, with secrets of its URL redacted.
        key: the key of the sample; "" if it concerns the whole shard.
        reason: what was found.
    """

    kind: str
    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.shard} {self.key}" if self.key else self.shard
        return f"{place}: {'note: ' if self.kind in NOTED_KINDS else ''}{self.kind}: {self.reason}"


@dataclass(frozen=True)
class ShardJob:
    """A shard to check: its name, its entry in the manifest (None without one), and the name of its copy."""

    name: str
    expected: Shard | None
    copy_name: str


@dataclass
class ShardCheck:
    """The result of checking a shard.

    Args:
        num_images, num_texts: rows and captions, as an index counts them.
        findings: faults and oddities.
        clean: the clean copy; None if none was written.
        left_out: messages on members that the copy cannot hold.
        in_no_sample: members of no sample, by ending.
    """

    num_images: int = 0
    num_texts: int = 0
    findings: list[Finding] = field(default_factory=list)
    clean: Shard | None = None
    left_out: list[str] = field(default_factory=list)
    in_no_sample: Counter[str] = field(default_factory=Counter)


@dataclass
class _Copy:
    """A clean copy while it is written."""

    tar: TarWriter
    keys: KeyMaker = field(default_factory=KeyMaker)
    num_images: int = 0
    num_texts: int = 0

    def write(self, key: str, members: dict[str, bytes], num_texts: int) -> list[str]:
        """Write a sample; return the extensions that are left out because they are too long."""
        safe = self.keys.make(key)
        too_long = [extension for extension in members if not fits_header(safe + extension)]
        self.tar.write_sample(safe, {ext: data for ext, data in sorted(members.items()) if ext not in too_long})
        self.num_images += 1
        self.num_texts += num_texts
        return too_long


def check_shard(
    job: ShardJob,
    folder: Path,
    captions: CaptionsMode,
    storage: Storage,
    max_pixels: int,
    clean_folder: Path | None = None,
) -> ShardCheck:
    """Check one shard, and write its good samples to ``clean_folder`` if that is given.

    Samples before garbage or a truncation are checked and copied too.

    Args:
        job: the shard.
        folder: the folder that names of local shards are relative to.
        captions: how texts are split.
        storage: reads remote shards.
        max_pixels: images with more pixels are faults.
        clean_folder: folder of the copy, whose texts hold one caption per line.

    Raises:
        OSError: the copy cannot be written.
    """
    result, name = ShardCheck(), redact(job.name)

    def found(kind: str, reason: str) -> None:
        result.findings.append(Finding(kind, name, "", reason))

    with contextlib.ExitStack() as stack:
        try:
            path = storage.local_copy(job.name) if is_remote(job.name) else folder / job.name
            if not path.is_file():
                found(MANIFEST_KIND, "is in the manifest but missing")
                return result
            _check_file(path, job, captions, result)
            tar = stack.enter_context(open_samples(path, name))
        except OSError as error:
            found("unreadable", f"cannot be read: {error.strerror or error}")
            return result
        except UserError as error:
            found("unreadable", str(error).removeprefix(f"shard {name}: "))
            return result
        # From here on, an error comes from writing the copy (a full disk, say) and is not a fault of the shard.
        copy = None
        if clean_folder is not None:
            copy = _Copy(stack.enter_context(TarWriter(clean_folder / job.copy_name)))
        _SampleChecks(tar, name, captions, max_pixels, result, copy).run()
    if copy is not None and clean_folder is not None:
        result.clean = _finish(copy, clean_folder)
    return result


def _finish(copy: _Copy, folder: Path) -> Shard | None:
    if not copy.num_images:
        copy.tar.path.unlink()
        return None
    shard = Shard(copy.tar.path.name, copy.num_images, copy.num_texts, copy.tar.size, copy.tar.sha256)
    save_row_table(folder, shard, index_shard(copy.tar.path, "lines"))
    return shard


def _check_file(path: Path, job: ShardJob, captions: CaptionsMode, result: ShardCheck) -> None:
    """Compare size, hash and counts with the manifest, and count rows and captions."""

    def differs(reason: str) -> None:
        result.findings.append(Finding(MANIFEST_KIND, redact(job.name), "", reason))

    size, expected = path.stat().st_size, job.expected
    if expected and size != expected.bytes:
        differs(f"has {size:,} bytes, the manifest says {expected.bytes:,}")
    elif expected and expected.sha256 and hash_files(path) != expected.sha256:
        differs("its bytes differ from what was written (sha256)")
    rows = index_shard(path, captions, "keep", redact(job.name))
    result.num_images, result.num_texts = len(rows), int(rows.caption_count.sum())
    if expected and (result.num_images, result.num_texts) != (expected.num_images, expected.num_texts):
        differs(
            f"holds {result.num_images:,} images and {result.num_texts:,} captions, "
            f"the manifest says {expected.num_images:,} and {expected.num_texts:,}"
        )


@dataclass
class _SampleChecks:
    """Checks of all samples of an open shard."""

    tar: TarSamples
    shard: str
    captions: CaptionsMode
    max_pixels: int
    result: ShardCheck
    copy: _Copy | None

    def run(self) -> None:
        """Add findings to the result, and good samples to the copy."""
        samples = self.tar.samples
        without_text = {sample.key for sample in samples if sample.image and not sample.text}
        strays = [sample for sample in samples if not sample.image and sample.text]
        stray_of = {sample.key: sample for sample in strays if sample.key in without_text}
        # A text is put back to its image if there is one of each with the key.
        num_strays = Counter(sample.key for sample in strays)
        num_images = Counter(sample.key for sample in samples if sample.image)
        seen: set[str] = set()
        for sample in samples:
            if sample.image is None:
                if sample.text and sample.key not in stray_of:
                    self._found("no_image", sample, f"only {', '.join(sample.members)}")
                continue
            if sample.key in seen:
                self._found("duplicate_key", sample, "an earlier sample has the same key")
            seen.add(sample.key)
            if "." in sample.key.rpartition("/")[2]:
                self._found("dotted_key", sample, SHARD_KINDS["dotted_key"])
            stray = None if sample.text else stray_of.get(sample.key)
            self._check_members(sample)
            is_clear = num_strays[sample.key] == num_images[sample.key] == 1
            self._check(sample, stray, is_clear)
        if self.tar.damage is not None:
            cut = f"; {self.tar.cut.key} is cut off" if self.tar.cut is not None else ""
            reason = self.tar.damage.reason.removeprefix(f"{self.tar.damage.kind}: ")
            self.result.findings.append(Finding(self.tar.damage.kind, self.shard, "", reason + cut))
        self.result.in_no_sample = self.tar.left_out

    def _found(self, kind: str, sample: TarSample, reason: str) -> None:
        self.result.findings.append(Finding(kind, self.shard, sample.key, reason))

    def _check_members(self, sample: TarSample) -> None:
        """Report images and texts of a sample that are not used."""
        for kind, used, known in (
            ("second_image", sample.image, IMAGE_EXTENSIONS),
            ("second_text", sample.text, TEXT_EXTENSIONS),
        ):
            for extension in sample.members:
                if extension in known and extension != used:
                    self._found(kind, sample, f"{extension} is not used, {used} is")

    def _check(self, sample: TarSample, stray: TarSample | None, is_clear: bool) -> None:
        """Check a sample with an image; ``stray`` holds its text if that is not adjacent to it."""
        assert sample.image is not None
        if stray is not None:
            self._found("not_adjacent", sample, f"its {stray.text} is not adjacent to its image")
        elif not sample.text:
            self._found("no_caption", sample, f"has no {', '.join(TEXT_EXTENSIONS[:-1])} or {TEXT_EXTENSIONS[-1]}")
        owner = sample if sample.text else stray if is_clear else None
        try:
            image = self.tar.read(sample, sample.image)
            text = None if owner is None or owner.text is None else self.tar.read(owner, owner.text)
            others = {
                extension: self.tar.read(sample, extension)
                for extension in (sample.members if self.copy is not None else ())
                if extension not in (*IMAGE_EXTENSIONS, *TEXT_EXTENSIONS)
            }
        except OSError as error:
            self._found("unreadable", sample, str(error.strerror or error))
            return
        format = self._check_image(sample, image)
        kept = [] if text is None else self._check_text(sample, text)
        if self.copy is not None and format is not None and kept:
            extension = EXTENSION_OF_FORMAT.get(format) or EXTENSIONS_OF_FORMAT[format][0]
            members = {**others, extension: image, TEXT_EXTENSION: "\n".join(kept).encode()}
            for left_out in self.copy.write(sample.key, members, len(kept)):
                self.result.left_out.append(
                    f"{self.shard} {sample.key}: {left_out} is left out of the copy: its name is longer than the "
                    f"{MAX_NAME} bytes of a header"
                )

    def _check_image(self, sample: TarSample, data: bytes) -> str | None:
        """Check the image and return its format; None if it is bad."""
        assert sample.image is not None
        try:
            encoded = open_encoded(data, self.max_pixels, sample.image)
            encoded.decode()
        except BadImage as error:
            self._found(error.kind, sample, f"image {sample.image}: {error}")
            return None
        for note in encoded.notes:
            self._found(note, sample, _describe(note, sample.image, encoded))
        return encoded.format

    def _check_text(self, sample: TarSample, text: bytes) -> list[str]:
        """Check the text and return the captions for the clean copy."""
        try:
            text.decode()
        except UnicodeDecodeError as error:
            self._found("not_utf8", sample, f"caption is not UTF-8 (byte {error.start})")
        captions = split_captions(text, self.captions)
        if not captions:
            self._found("empty_caption", sample, "its text is blank")
        return clean_captions(captions)[0]


def _describe(note: str, extension: str, encoded: EncodedImage) -> str:
    """Return the reason for a note: details of the image for some kinds, else the meaning of the kind."""
    if note == "wrong_extension":
        return f"is {encoded.format}, not {extension}"
    if note == "extreme_aspect":
        return f"{encoded.size[0]} x {encoded.size[1]} pixels"
    return USED_KINDS[note]

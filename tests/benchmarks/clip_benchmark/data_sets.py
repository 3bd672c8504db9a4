"""Write data sets in CLIP_benchmark's ``wds_`` layout from tars of class folders and of Karpathy's format.

Images keep their bytes, so both sides decode the same files.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bimodal_cl.errors import UserError
from eval.class_prompts import load_templates

SPLIT = "test"


@dataclass(frozen=True)
class DataSet:
    """A data set of the benchmark.

    Args:
        name: the name in the results of both sides.
        tar: file name of its raw data.
        prompts: name of a built-in list of prompts; None: retrieval of captions.
    """

    name: str
    tar: str
    prompts: str | None = None

    @property
    def task(self) -> str:
        """The task, as CLIP_benchmark calls it."""
        return "zeroshot_retrieval" if self.prompts is None else "zeroshot_classification"


DATA_SETS = (
    DataSet("cifar10", "cifar10_test.tar", "small"),
    DataSet("clothing", "clothing.tar", "clothing"),
    DataSet("flickr8k", "flickr8k.tar"),
)

Sample = tuple[str, bytes, str, bytes]  # image extension, image, label extension, label


def write_data_set(data_set: DataSet, source: Path, folder: Path, num_shards: int, limit: int | None = None) -> int:
    """Write the test split of a data set.

    Args:
        data_set: which.
        source: folder of the tars.
        folder: folder of the written data set.
        num_shards: number of tars; CLIP_benchmark gives each loader process whole tars.
        limit: largest number of images, evenly spaced over the split; None: all.

    Returns:
        The number of images.

    Raises:
        UserError: the tar is missing, or is not of the format that is expected.
    """
    try:
        with tarfile.open(source / data_set.tar) as tar:
            if data_set.prompts is None:
                samples, extras = _read_pairs(tar), {"dataset_type.txt": ["retrieval"]}
            else:
                classes, samples = _read_classes(tar)
                templates = load_templates(data_set.prompts)
                extras = {"classnames.txt": classes, "zeroshot_classification_templates.txt": templates}
            return _write(samples, extras, folder, num_shards, limit)
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise UserError(
            f"{source / data_set.tar}: cannot be read as the raw data of {data_set.name}: {error}"
        ) from None


def _read_classes(tar: tarfile.TarFile) -> tuple[list[str], Iterator[Sample]]:
    """Return class names in the order of their folders, and the images of ``test/CLASS/``."""
    members = [
        (PurePosixPath(member.name), member)
        for member in tar
        if member.isfile() and member.name.removeprefix("./").startswith(f"{SPLIT}/")
    ]
    folders = sorted({path.parent.name for path, _ in members})
    members.sort(key=lambda item: str(item[0]))
    samples = (
        (path.suffix.lower(), _read(tar, member), ".cls", str(folders.index(path.parent.name)).encode())
        for path, member in members
    )
    return [folder.replace("_", " ") for folder in folders], samples


def _read_pairs(tar: tarfile.TarFile) -> Iterator[Sample]:
    """Yield the test images of Karpathy's JSON, each with its captions, one per line."""
    members = {PurePosixPath(member.name).name: member for member in tar if member.isfile()}
    listing = [member for name, member in members.items() if name.endswith(".json")]
    if len(listing) != 1:
        raise ValueError(f"it has {len(listing)} JSON files instead of one")
    for image in json.loads(_read(tar, listing[0]))["images"]:
        if image["split"] == SPLIT:
            captions = "\n".join(" ".join(sentence["raw"].split()) for sentence in image["sentences"])
            file = members[image["filename"]]
            yield PurePosixPath(file.name).suffix.lower(), _read(tar, file), ".txt", captions.encode()


def _write(
    samples: Iterator[Sample], extras: dict[str, Sequence[str]], folder: Path, num_shards: int, limit: int | None
) -> int:
    kept = list(samples)
    if not kept:
        raise ValueError(f"it has no {SPLIT} split")
    if limit is not None and limit < len(kept):
        kept = [kept[number * len(kept) // limit] for number in range(limit)]
    (folder / SPLIT).mkdir(parents=True, exist_ok=True)
    for name, lines in {**extras, f"{SPLIT}/nshards.txt": [str(num_shards)]}.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for shard in range(num_shards):
        with tarfile.open(folder / SPLIT / f"{shard}.tar", "w") as tar:
            for number in range(shard, len(kept), num_shards):
                ending, image, label_ending, label = kept[number]
                _add(tar, f"{number:06d}{ending}", image)
                _add(tar, f"{number:06d}{label_ending}", label)
    return len(kept)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()

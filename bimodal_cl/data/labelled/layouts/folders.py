"""Open a folder of class folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bimodal_cl.data.labelled.class_folders import find_class_folders
from bimodal_cl.data.labelled.class_names import NameList, name_classes
from bimodal_cl.data.labelled.images import ImageFiles, LabelledImages
from bimodal_cl.data.labelled.layouts.files_beside import read_names_beside, read_templates, warn_of_left_out
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_files import count_endings, describe_endings, ending_of, list_images
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS
from bimodal_cl.files.tar_files import count_other_shards


def open_folders(root: Path, parents: list[Path], name: str, split: str, given: NameList | None) -> LabelledImages:
    """Open the images below the class folders of a folder.

    Args:
        root: holds the class folders.
        parents: folders that may hold names and prompts.
        name: of the data set.
        split: for messages.
        given: names in place of those of ``classnames.txt``.

    Raises:
        UserError: there is no image, or the folders do not match the names.
    """
    folders, remarks = find_class_folders(root)
    listed = given or read_names_beside(parents) or NameList([], "")
    classes = name_classes(root, folders, listed.names or None, listed.origin)
    paths: list[Path] = []
    labels: list[int] = []
    empty = []
    left_out: Counter[str] = Counter()
    for folder, label in classes.label_of_folder.items():
        files, others = list_images(root / folder)
        left_out += count_endings(others, root / folder)
        paths += sorted(files)
        labels += [label] * len(files)
        if not files:
            empty.append(folder)
    if not paths:
        hint = did_you_mean(split, folders)
        shards = count_other_shards(root)
        left_out += shards
        found = f", only {describe_endings(left_out)}" if left_out else ""
        hint = f"; shards must be plain tars: unpack them{hint}" if shards else hint
        raise UserError(f"{root}: neither class folders with images nor {split}/*.tar{found}{hint}")
    loose = count_endings([path for path in root.iterdir() if ending_of(path.name) in IMAGE_EXTENSIONS], root)
    left_out.update({f"{ending} outside the class folders": count for ending, count in loose.items()})
    warn_of_left_out(root, left_out)
    notes = [*remarks, *classes.notes]
    if empty:
        shown = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        notes.append(
            f"warning: {len(empty)} of {len(folders)} class folders hold no image: {shown}; they stay candidates"
        )
    return LabelledImages(
        name,
        classes.names,
        read_templates(parents),
        labels,
        ImageFiles(paths),
        classes.label_of_folder,
        notes,
        class_of_label={} if listed.names else classes.label_of_folder,
    )

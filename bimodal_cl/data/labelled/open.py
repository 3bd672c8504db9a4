"""Open images with class labels, in any layout."""

from __future__ import annotations

from pathlib import Path

from bimodal_cl.data.labelled.class_names import NameList, read_name_list
from bimodal_cl.data.labelled.images import LabelledImages
from bimodal_cl.data.labelled.layouts.columns import ColumnOptions
from bimodal_cl.data.labelled.layouts.folders import open_folders
from bimodal_cl.data.labelled.layouts.hf import HUB, PARQUET, is_hf, open_hf
from bimodal_cl.data.labelled.layouts.table import TABLES, open_table
from bimodal_cl.data.labelled.layouts.wds import is_wds, open_wds
from bimodal_cl.errors import UserError, did_you_mean


def open_labelled(
    path: str | Path,
    split: str = "test",
    classnames: str | Path | NameList | None = None,
    columns: ColumnOptions | None = None,
) -> LabelledImages:
    """Open images with class labels.

    Layouts, tried in this order:

    - ``hf:NAME`` or ``hf:NAME:CONFIGURATION``: a data set on the Hugging Face hub; a ``.parquet`` file; a folder that
      ``save_to_disk`` wrote, or with parquet files: see :mod:`bimodal_cl.data.labelled.layouts.hf`;
    - a ``.csv`` or ``.tsv`` file with a column of image paths and one of labels;
    - ``wds_``: ``PATH/SPLIT/0.tar, 1.tar, ...`` (as many as ``PATH/SPLIT/nshards.txt`` says, if it exists) of images
      with ``.cls`` (the class index or name) or ``.npy`` (the class index, or 0 or 1 for every class), and
      ``PATH/classnames.txt`` with a name per line;
    - ``PATH/SPLIT/CLASS/...`` or ``PATH/CLASS/...``: folders are the classes. Their names, with underscores as spaces,
      go into prompts, unless there is a ``classnames.txt``: see :mod:`bimodal_cl.data.labelled.class_names`.

    Images are the files with ``IMAGE_EXTENSIONS``; a warning counts all others by extension. Every layout may have a
    ``zeroshot_classification_templates.txt`` with a prompt per line, in which ``{c}`` stands for the class name.

    Args:
        path: folder, file, or name on the hub of the data set.
        split: name of the part.
        classnames: names in place of those of ``classnames.txt``, or a file of them, one per line.
        columns: how to read tables and Hugging Face data sets.

    Raises:
        UserError: the data has none of these layouts, or a file is missing, unreadable or contradicts the others.
    """
    columns = columns or ColumnOptions()
    given = read_name_list(Path(classnames)) if isinstance(classnames, (str, Path)) else classnames
    if str(path).startswith(HUB):
        return open_hf(str(path), str(path).removeprefix(HUB).replace(":", "_"), split, columns, given)
    path = Path(path)
    if path.is_file():
        return _open_file(path, split, columns, given)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of labelled images")
    name = (path.resolve().parent if path.name == split else path.resolve()).name.removeprefix("wds_")
    part = path / split
    if is_hf(path, split):
        return open_hf(str(path), name, split, columns, given)
    columns.refuse_for(f"{path}")
    if is_wds(part):
        return open_wds(path, part, name, given)
    return open_folders(part if part.is_dir() else path, [path, part], name, split, given)


def _open_file(path: Path, split: str, columns: ColumnOptions, given: NameList | None) -> LabelledImages:
    name = path.resolve().parent.name if path.stem == split else path.stem
    if path.suffix.lower() in TABLES:
        return open_table(path, name, split, columns, given)
    if is_hf(path, split):
        return open_hf(str(path), name, split, columns, given)
    known = (*TABLES, PARQUET)
    raise UserError(f"{path}: is neither a folder nor a file of {', '.join(known)}{did_you_mean(path.suffix, known)}")

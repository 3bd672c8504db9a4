"""Open images with class labels, in any layout."""

from __future__ import annotations

from pathlib import Path

from bimodal_cl.data.labelled.folders import open_folders
from bimodal_cl.data.labelled.images import LabelledImages
from bimodal_cl.data.labelled.wds import is_wds, open_wds
from bimodal_cl.errors import UserError


def open_labelled(path: str | Path, split: str = "test", classnames: str | Path | None = None) -> LabelledImages:
    """Open images with class labels.

    Layouts, tried in this order:

    - ``wds_``: ``PATH/SPLIT/0.tar, 1.tar, ...`` (as many as ``PATH/SPLIT/nshards.txt`` says, if it exists) of images
      with ``.cls`` (the class index or name) or ``.npy`` (the class index, or 0 or 1 for every class), and
      ``PATH/classnames.txt`` with a name per line;
    - ``PATH/SPLIT/CLASS/...`` or ``PATH/CLASS/...``: folders are the classes. Their names, with underscores as spaces,
      go into prompts, unless there is a ``classnames.txt``: see :mod:`bimodal_cl.data.labelled.class_names`.

    Images are the files with ``IMAGE_EXTENSIONS``; a warning counts all others by extension. Either layout may have a
    ``zeroshot_classification_templates.txt`` with a prompt per line, in which ``{c}`` stands for the class name.

    Args:
        path: folder of the data set.
        split: name of the part.
        classnames: a file of names, one per line, in place of ``classnames.txt``.

    Raises:
        UserError: the folder has neither layout, or a file is missing, unreadable or contradicts the others.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of labelled images")
    name = (path.resolve().parent if path.name == split else path.resolve()).name.removeprefix("wds_")
    part = path / split
    given = None if classnames is None else Path(classnames)
    if is_wds(part):
        return open_wds(path, part, name, given)
    return open_folders(part if part.is_dir() else path, [path, part], name, split, given)

"""A table, written and read."""

import pytest

from tests.test_data_prep.raw_material import captions_of, image_of, photo, write_files


@pytest.fixture
def table(prep, tmp_path):
    """Write a table of the images 0.jpg to 5.jpg; return the outcome and the captions of every image, in order."""
    raw = write_files(tmp_path / "raw", {f"{n}.jpg": photo(n) for n in range(6)})

    def run(content, *flags, encoding="utf-8"):
        (raw / "pairs.csv").write_bytes(content.encode(encoding) if isinstance(content, str) else content)
        done = prep("write", "csv", "--csv", raw / "pairs.csv", *flags, "--to", tmp_path / "to", "--overwrite")
        numbers = {photo(n): n for n in range(6)}
        samples = [] if done.status else done.samples()
        return done, {numbers[image_of(sample)]: captions_of(sample) for sample in samples}

    return run

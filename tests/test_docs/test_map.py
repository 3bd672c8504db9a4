"""The file map is true: it names every module, and says what the module's own docstring says first."""

import re

from tests.test_docs.write_map import PAGE, format_map, read_summaries


def read_map():
    page = PAGE.read_text(encoding="utf-8")
    for section in page.split("\n## ")[1:]:
        folder, _, table = section.partition("\n")
        for name, text in re.findall(r"^\| `(\w+\.py)` \| (.*) \|$", table, flags=re.MULTILINE):
            yield f"{folder}/{name}", text


def test_the_map_names_every_module_in_its_own_words():
    rows = dict(read_map())
    assert rows == {path: text.replace("|", "\\|") for path, text in read_summaries().items()}
    assert all(rows.values())


def test_the_map_is_as_make_map_writes_it():
    assert PAGE.read_text(encoding="utf-8") == format_map(read_summaries())

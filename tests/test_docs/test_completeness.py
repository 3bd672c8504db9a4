"""Every loss and every source is on the pages and in the import rules that should name it."""

from bimodal_cl.losses import LOSSES
from data_prep.sources import SOURCES
from tests.test_docs.pages import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_every_loss_is_described():
    assert [name for name in LOSSES if f"\n| `{name}` |" not in page("losses.md")] == []
    assert [name for name in LOSSES if f"<!-- hyperparameters: {name} -->" not in page("python-api.md")] == []


def test_every_source_is_described():
    assert [name for name in SOURCES if f"\n| `{name}` |" not in page("data.md")] == []


def test_every_source_is_in_the_import_rule():
    rules = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    own = [module.__name__ for module in SOURCES.values() if module.__name__.startswith("data_prep.sources.")]
    assert own
    assert [name for name in own if f'"{name}"' not in rules] == []

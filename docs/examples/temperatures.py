"""Print the captions with the smallest and largest temperatures: python docs/examples/temperatures.py RUN"""

import json
import sys
import tempfile
from pathlib import Path

from eval.cli import main as evaluate

run = sys.argv[1]
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "temperatures.json"
    evaluate(
        ["temperatures", run, "--top", "0", "--sample", "0", "--to", str(file)]
    )  # bimodal-eval temperatures RUN --to FILE
    table = json.loads(file.read_text(encoding="utf-8"))

visited = [text for text in table["texts"] if text["tau"] is not None]  # None: this caption was never drawn
visited.sort(key=lambda text: text["tau"])
for text in [*visited[:3], *visited[-3:]]:
    print(f"{text['tau']:.4f}  {text['caption']}")

"""Split OpenMoji into tables: python docs/examples/openmoji_tables.py openmoji.json color/ TO

An emoji and its variants of skin tone stay on one side of a split, and so do images of the same bytes and those of the
same name. All variants are in the training data, which makes frequent meanings; validation and test data have none.
"""

import csv
import hashlib
import json
import sys
from pathlib import Path

source, images, to = map(Path, sys.argv[1:])
first_of_bytes: dict[str, str] = {}  # the first emoji of each image
family: dict[str, str] = {}  # an emoji in the family of each emoji and of each name
captions: dict[str, list[str]] = {}  # of each image
plain: set[str] = set()  # without skin tone
for emoji in json.loads(source.read_text(encoding="utf-8")):
    code = emoji["hexcode"]
    first = first_of_bytes.setdefault(hashlib.sha256((images / f"{code}.png").read_bytes()).hexdigest(), code)
    base = emoji.get("skintone_base_hexcode") or code
    kin = (first, base, emoji["annotation"])
    family[code] = next((family[each] for each in kin if each in family), base)
    for each in kin:
        family.setdefault(each, family[code])
    captions.setdefault(first, []).append(emoji["annotation"])
    if not emoji["skintone"]:
        plain.add(first)

to.mkdir(parents=True, exist_ok=True)
tables = {name: [] for name in ("train", "val", "test")}
for code, names in captions.items():
    draw = int(hashlib.sha256(family[code].encode()).hexdigest(), 16) % 10
    split = {0: "test", 1: "test", 2: "val"}.get(draw, "train")
    if split == "train" or code in plain:
        tables[split] += [(str((images / f"{code}.png").resolve()), name) for name in dict.fromkeys(names)]
for name, rows in tables.items():
    with (to / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    print(f"{name}: {len({image for image, _ in rows}):,} images, {len(rows):,} captions")

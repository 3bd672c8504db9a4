"""Compare a study's methods on frequent and rare concepts: recall_by_concept.py STUDY TRAIN.csv TEST.csv SETTING

The tables are those of ``bimodal-prep concepts`` (or ``thin``) for the training and the test data. A test image and its
captions count as frequent as their concept is in the training data. SETTING are the values of all the study's axes, as
128; nothing for a study without axes.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy import stats

LIMITS = {"at least 250": (250, float("inf")), "40 to 249": (40, 250), "below 40": (0, 40)}  # training images


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


study, train, test = map(Path, sys.argv[1:4])
counts: dict[str, int] = {}  # training images of each concept
for row in read_rows(train):
    counts[row["concept"]] = int(row.get("concept_count_after") or row["concept_count"])
rows = sorted(read_rows(test), key=lambda row: int(row["image_id"]))
frequency = np.array([counts.get(row["concept"], 0) for row in rows])

runs: dict[str, dict[str, Path]] = {}  # outcomes of the queries, by method and seed
for row in read_rows(study / "table.csv"):
    setting = list(row.values())[1 : list(row).index("chosen")]
    if row["metric"] == "rsum" and sys.argv[4:] == setting:
        for seed, folder in zip(row["seeds"].split(), row["runs"].split(), strict=True):
            (runs.setdefault(row["method"], {})[seed],) = (study / folder / "results").glob("*.outcomes.npz")


def rsum(path: Path, of_group: np.ndarray) -> float:
    """RSUM, in points, of the captions and images of a group."""
    outcomes = np.load(path)
    assert len(outcomes["text_ranks"]) == len(of_group), f"{test} does not list the test images"
    ranks = outcomes["image_ranks"][of_group[outcomes["image_of_text"]]], outcomes["text_ranks"][of_group]
    return 100 * sum(float(np.mean(each <= k)) for each in ranks for k in (1, 5, 10))


if not runs:
    sys.exit(f"{study / 'table.csv'} has no runs at the setting '{' '.join(sys.argv[4:])}'; name a value of each axis")
first, *others = runs
for name, (low, high) in LIMITS.items():
    of_group = (frequency >= low) & (frequency < high)
    if not of_group.any():
        continue
    base = {seed: rsum(path, of_group) for seed, path in runs[first].items()}
    print(f"{name} training images: {of_group.sum()} test images, {first} {np.mean(list(base.values())):.1f}")
    for method in others:
        common = sorted(base.keys() & runs[method])
        gains = np.array([rsum(runs[method][seed], of_group) - base[seed] for seed in common])
        half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains) if len(gains) > 1 else float("nan")
        print(f"  {method} - {first}: {gains.mean():+.1f} [{gains.mean() - half:+.1f}, {gains.mean() + half:+.1f}]")

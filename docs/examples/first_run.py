"""Write a tiny data set, train for five steps, evaluate: python docs/examples/first_run.py FOLDER"""

import sys

from bimodal_cl.train import main as train
from data_prep.cli import main as prep
from eval.cli import main as evaluate


def main(folder: str) -> None:
    """Do what the commands bimodal-prep, bimodal-train and bimodal-eval do; each returns its exit status."""
    sizes = {"--num-train": 384, "--num-val": 32, "--num-retrieval": 32, "--images-per-concept": 1, "--num-workers": 1}
    assert prep(["write", "synthetic", "--to", f"{folder}/data", *flags(sizes)]) == 0

    settings = {
        "--config": "configs/train/quickstart.yaml",
        "--output": f"{folder}/run",
        "--data.train": f"{folder}/data/train",
        "--data.val": f"{folder}/data/val",
        "--data.num_workers": 0,
        "--train.num_epochs": "null",
        "--train.num_steps": 5,
        "--train.evaluate_every": 5,
        "--optim.warmup_steps": 2,
    }
    assert train(flags(settings)) == 0

    assert evaluate(["retrieval", f"{folder}/run", "--data", f"{folder}/data/retrieval"]) == 0
    assert evaluate(["report", f"{folder}/run"]) == 0


def flags(values: dict[str, object]) -> list[str]:
    """Turn ``{"--name": value}`` into the words of a command line."""
    return [str(word) for pair in values.items() for word in pair]


if __name__ == "__main__":  # worker processes import this file again
    main(sys.argv[1])

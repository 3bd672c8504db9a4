"""Train from Python, then go on and load the model: python docs/examples/train.py SHARDS FOLDER"""

import sys

from bimodal_cl import Trainer, UserError, load_config
from bimodal_cl.models import load_model


def main(shards: str, folder: str) -> None:
    """Train for five steps on a folder of shards, and compare two captions by the trained model."""
    values = {
        "output": folder,
        "data.train": shards,
        "data.val": None,
        "data.num_workers": 0,
        "train.num_epochs": None,
        "train.num_steps": 5,
        "train.evaluate_every": None,
        "optim.warmup_steps": 2,
    }
    config = load_config("configs/train/quickstart.yaml", values)
    run = Trainer(config).run()
    print("trained:", run)

    try:
        Trainer(config).run()
    except UserError as error:  # one line, the same that the command prints
        print("refused:", error)

    print("continued:", Trainer(config, resume="latest").run())  # there is nothing left to do

    first, second = load_model(run).encode_text(["a large red circle", "a small blue star"])
    print(f"cosine of the captions: {(first @ second).item():.3f}")


if __name__ == "__main__":  # worker processes import this file again
    main(*sys.argv[1:])

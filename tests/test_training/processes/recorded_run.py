"""Train, and record which samples each step gets: ``python recorded_run.py RECORD --config FILE ...``.

Each rank appends a line a step to ``RECORD.rank<rank>``: step, image ids, text ids, before the step is taken.
"""

import json
import os
import sys
import time
from pathlib import Path

from bimodal_cl import train
from bimodal_cl.trainer import Trainer


def record(path: Path) -> None:
    """Make every trainer of this process record its steps in a file."""
    step = Trainer.step

    def step_and_record(self, batch):
        line = [self.steps_done, batch.image_ids.tolist(), batch.text_ids.tolist()]
        with path.with_name(f"{path.name}.rank{self.accelerator.process_index}").open("a") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(0.05)  # leaves time to kill the run at a chosen step
        return step(self, batch)

    Trainer.step = step_and_record


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    record(Path(sys.argv[1]))
    sys.exit(train.main(sys.argv[2:]))

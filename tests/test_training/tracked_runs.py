"""Read back what each tracker keeps of a run: ``{(name, step): value}``, the config, and how many runs it knows."""

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

Kept = tuple[dict[tuple[str, int], float], dict[str, object], int]


def read_tensorboard(run: Path) -> Kept:
    """Read the event files; TensorBoard keeps float32."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    values = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    (hparams,) = (run / "tensorboard").glob("*/hparams.yml")
    config = dict(line.split(": ", 1) for line in hparams.read_text().splitlines())
    return values, config, 1


def read_wandb(run: Path) -> Kept:
    """Read the files of W&B's offline mode, in their order; each resumed part of a run has one of its own."""
    from wandb.proto import wandb_internal_pb2

    values, config, ids = {}, {}, set()
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} - {""}
            config |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
            for item in record.history.item:
                values[item.nested_key[0], record.history.step.num] = json.loads(item.value_json)
    return {key: value for key, value in values.items() if "/" in key[0]}, config, len(ids)


def read_trackio(run: Path) -> Kept:
    """Read the database in ``$TRACKIO_DIR``, here a folder beside the run."""
    database = sqlite3.connect(run.with_name("trackio") / "bimodal_cl.db")
    values = {
        (name, step): value
        for step, metrics in database.execute("SELECT step, metrics FROM metrics ORDER BY id")
        for name, value in json.loads(metrics).items()
    }
    ((config,),) = database.execute("SELECT config FROM configs")
    ((num_runs,),) = database.execute("SELECT COUNT(DISTINCT run_id) FROM metrics")
    return values, json.loads(config), num_runs


def read_mlflow(run: Path) -> Kept:
    """Ask MLflow's client about the database in the run's folder."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "bimodal_cl"]
    runs = client.search_runs([experiment.experiment_id])
    values = {
        (name.replace("_at_", "@"), metric.step): metric.value
        for name in runs[0].data.metrics
        for metric in client.get_metric_history(runs[0].info.run_id, name)
    }
    return values, runs[0].data.params, len(runs)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of LevelDB's log format, behind W&B's header of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        if kind == 0:
            return
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""

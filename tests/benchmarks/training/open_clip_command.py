"""Run open_clip's training command with another interpreter, with a clock around the parts of its steps.

``python open_clip_command.py '{"model": {...}, ...}'``. That interpreter needs open_clip_torch 3.3.0 and webdataset
0.2.86, and nothing of this project. The command is ``open_clip_train.main`` itself with its command line; the clock is
hung on the objects that it makes and costs microseconds a step. The last line printed is one of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

PARTS = ("wait for data", "forward", "loss", "backward", "optimizer")


class StepClock:
    """Adds up the seconds of each part of the steps, those at the start left out.

    Args:
        warm_up: steps at the start that do not count.
    """

    def __init__(self, warm_up: int) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps, self._warm_up = 0, warm_up
        self._began: dict[str, float] = {}
        self.first = self.last = 0.0

    def begin(self, part: str, *_: Any) -> None:
        """Start a part."""
        self._began[part] = time.perf_counter()

    def end(self, part: str, *_: Any) -> None:
        """End a part."""
        if self.steps >= self._warm_up:
            self.seconds[part] += time.perf_counter() - self._began[part]

    def watch(self, module: Any, part: str) -> None:
        """Take the time of a module's forward pass."""
        module.register_forward_pre_hook(lambda *_: self.begin(part))
        module.register_forward_hook(lambda *_: self.end(part))

    def end_step(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == self._warm_up:
            self.first = time.perf_counter()
        self.last = time.perf_counter()

    def account(self) -> dict[str, float]:
        """Return the milliseconds of a step, by part, and those of the whole step."""
        steps = self.steps - self._warm_up
        whole = (self.last - self.first) / steps
        parts = {part: 1e3 * seconds / steps for part, seconds in self.seconds.items()}
        return {**parts, "rest": 1e3 * whole - sum(parts.values()), "step": 1e3 * whole}


class WatchedLoader:
    """open_clip's loader, with a clock around each batch; a step ends where the next batch is asked for."""

    def __init__(self, loader: Any, clock: StepClock) -> None:
        self._loader, self._clock = loader, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while True:
            self._clock.begin("wait for data")
            batch = next(batches, None)
            if batch is None:
                return
            self._clock.end("wait for data")
            yield batch
            self._clock.end_step()


def train(model: dict[str, Any], folder: str, arguments: list[str], warm_up: int) -> dict[str, Any]:
    """Train as ``open_clip_train.main`` does.

    Args:
        model: an open_clip model config.
        folder: where it is written.
        arguments: of the command line, without ``--model``.
        warm_up: steps at the start that the account leaves out.

    Returns:
        ``account`` in milliseconds a step, and ``versions``.
    """
    import open_clip
    from open_clip_train import main as command
    from open_clip_train import train as loop
    from torch.optim import optimizer

    path = Path(folder, "benchmarked.json")
    path.write_text(json.dumps(model))
    open_clip.add_model_config(path)
    clock = StepClock(warm_up)
    build_model, build_loss, build_data, backward = (
        command.create_model_and_transforms,
        command.create_loss,
        command.get_data,
        loop.backward,
    )

    def watched_model(*args: Any, **kwargs: Any) -> Any:
        built = build_model(*args, **kwargs)
        clock.watch(built[0], "forward")
        return built

    def watched_loss(*args: Any) -> Any:
        loss = build_loss(*args)
        clock.watch(loss, "loss")
        return loss

    def watched_data(*args: Any, **kwargs: Any) -> Any:
        data = build_data(*args, **kwargs)
        data["train"].dataloader = WatchedLoader(data["train"].dataloader, clock)
        return data

    def watched_backward(*args: Any) -> None:
        clock.begin("backward")
        backward(*args)
        clock.end("backward")

    command.create_model_and_transforms, command.create_loss = watched_model, watched_loss
    command.get_data, loop.backward = watched_data, watched_backward
    optimizer.register_optimizer_step_pre_hook(lambda *_: clock.begin("optimizer"))
    optimizer.register_optimizer_step_post_hook(lambda *_: clock.end("optimizer"))
    command.main(["--model", path.stem, *arguments])
    versions = ", ".join(f"{name} {version(name)}" for name in ("open_clip_torch", "webdataset", "torch", "pillow"))
    return {"account": clock.account(), "steps": clock.steps, "versions": versions}


if __name__ == "__main__":
    print("\n" + json.dumps(train(**json.loads(sys.argv[1]))))

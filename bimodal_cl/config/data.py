"""The section ``data``: the training and validation data, and the order of the samples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from bimodal_cl.settings import Count, CountOrZero, Fraction, NotNegative, PathText, Positive, Section


class TrainSet(Section):
    """One of several data sets that are trained on together."""

    folder: PathText = Field(description="folder of shards with manifest.json (see bimodal-prep)")
    repeat: Positive | None = Field(None, description="how often an epoch uses each image; 0.5: every other epoch")
    weight: Positive | None = Field(
        None, description="share of an epoch that is as long as all sets; instead of repeat"
    )


def _as_sets(value: Any) -> Any:
    """A folder alone stands for a list of one."""
    values = [value] if isinstance(value, str | dict) else value
    if not isinstance(values, list | tuple):
        raise ValueError("should be a folder, or a list of {folder, repeat | weight}")
    return [{"folder": each} if isinstance(each, str) else each for each in values]


def _as_written(sets: tuple[TrainSet, ...]) -> Any:
    values = [one.model_dump(mode="json") for one in sets]
    return values[0]["folder"] if len(values) == 1 and list(values[0]) == ["folder"] else values


class Data(Section):
    """Training and validation data, and the order of the samples."""

    train: Annotated[tuple[TrainSet, ...], BeforeValidator(_as_sets), PlainSerializer(_as_written)] = Field(
        description="folder of shards with manifest.json (see bimodal-prep), or a list of {folder, repeat | weight}"
    )
    val: PathText | None = Field(None, description="folder of shards for retrieval scores during training")
    features: PathText | None = Field(
        None, description="train the heads alone, on features of locked towers in this folder (bimodal-prep encode)"
    )
    zero_shot: PathText | None = Field(None, description="classification data for zero-shot scores during training")
    num_workers: CountOrZero = Field(2, description="worker processes that read and decode, on each rank; 0: none")
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.9, 1.0), description="smallest and largest area share of the random crop (open_clip: 0.9 to 1)"
    )
    flip: bool = Field(False, description="mirror half of the images; wrong where captions say left or right")
    shuffle_window: Count = Field(8192, description="samples that the bounded shuffle mixes at a time, on each lane")
    max_bad_fraction: Fraction = Field(0.01, description="stop when a larger share of the samples is unusable")
    cache_dir: PathText | None = Field(None, description="cache of remote shards; null: the user's cache folder")
    cache_gb: NotNegative = Field(16.0, description="limit of that cache, GiB; 0: rows are fetched one by one")
    allow_pipe: bool = Field(False, description="run the commands of pipe: shards")

    @field_validator("crop_scale", mode="before")
    @classmethod
    def _crop_is_a_pair(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("should be [smallest, largest], such as [0.9, 1.0]")
        return value

    @model_validator(mode="after")
    def _weights_for_all_or_none(self) -> Data:
        if not self.train:
            raise ValueError("train names no data set")
        weighted = [one.folder for one in self.train if one.weight is not None]
        plain = [one.folder for one in self.train if one.weight is None]
        if weighted and plain:
            raise ValueError(f"give every data set of train a weight or none; without: {', '.join(plain)}")
        both = [one.folder for one in self.train if one.weight is not None and one.repeat is not None]
        if both:
            raise ValueError(f"data set {both[0]} has a repeat and a weight; give one of them")
        return self

    @model_validator(mode="after")
    def _crop_is_ordered(self) -> Data:
        low, high = self.crop_scale
        if not 0 < low <= high:
            raise ValueError(f"crop_scale={[low, high]} must be [smallest, largest] with 0 < smallest <= largest")
        return self

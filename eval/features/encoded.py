"""Encode class prompts, captions, images and image-text pairs for a command, or take their features from its store.

All processes of a command call these functions together. Each encodes a share, and gets all features.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol, TypeVar

from bimodal_cl.cli.processes import is_main_process
from bimodal_cl.cli.progress import note
from bimodal_cl.errors import one_line

from ..encode import ScoredModel, autocast_type
from .identity import hash_shards, hash_values, identify_model
from .store import Entry, FeatureStore

if TYPE_CHECKING:
    from torch import Tensor

    from bimodal_cl.data import Manifest
    from bimodal_cl.data.shards.faults import FaultCounts
    from bimodal_cl.scoring.classifier import Classifier
    from bimodal_cl.scoring.retrieval import PairFeatures
    from bimodal_cl.scoring.zero_shot import Labelled, LabelledFeatures

    class IdentifiedImages(Labelled, Protocol):
        """Images that their content identifies, such as ``bimodal_cl.data.LabelledImages``."""

        def digest(self) -> str:
            """Return a hash of the encoded images in their order."""


T = TypeVar("T")

_OF_PAIRS = ("image_features", "text_features", "image_ids", "text_ids", "image_of_text")


def encode_prompts(
    model: ScoredModel,
    classnames: Sequence[str | Sequence[str]],
    templates: Sequence[str],
    arguments: argparse.Namespace,
) -> Classifier:
    """Encode class prompts.

    Args:
        model: the model.
        classnames: one name per class, or several.
        templates: prompts with ``{c}``.
        arguments: ``precision``, ``cache``.
    """
    from bimodal_cl.scoring.classifier import Classifier, build_classifier

    device = model.encoder.device

    def encode() -> Classifier:
        autocast = autocast_type(arguments.precision)
        return build_classifier(model.encoder, classnames, templates, autocast, show_progress=True, shared=True)

    def restore(entry: Entry) -> Classifier:
        features = entry.tensors["features"].to(device)
        return Classifier(**{**entry.tensors, "features": features})

    def keep(classifier: Classifier) -> Entry:
        return Entry({name: each for name, each in vars(classifier).items() if each is not None})

    texts = hash_values(list(classnames), list(templates))
    return _encode_or_load(model, arguments, "prompts", lambda: texts, encode, keep, restore)


def encode_captions(model: ScoredModel, captions: Sequence[str], arguments: argparse.Namespace) -> Tensor:
    """Encode captions without regard to images; float32 ``[captions, dim]``, unit norm, in their order.

    Args:
        model: the model.
        captions: at least one.
        arguments: ``precision``, ``cache``.
    """
    from bimodal_cl.scoring.composition import encode_texts

    device = model.encoder.device

    def encode() -> Tensor:
        return encode_texts(model.encoder, captions, autocast_type(arguments.precision), shared=True)

    def restore(entry: Entry) -> Tensor:
        return entry.tensors["text_features"].to(device)

    def keep(features: Tensor) -> Entry:
        return Entry({"text_features": features})

    return _encode_or_load(model, arguments, "captions", lambda: hash_values(list(captions)), encode, keep, restore)


def encode_images(model: ScoredModel, labelled: IdentifiedImages, arguments: argparse.Namespace) -> LabelledFeatures:
    """Encode labelled images; those that cannot be read are left out.

    Features that are kept depend on the images and their order, not on labels and class names. So zero-shot
    classification, linear probes, k-NN and composition of one model on the same images share them.

    Args:
        model: the model.
        labelled: the images.
        arguments: ``batch_size``, ``num_workers``, ``precision``, ``cache``.

    Raises:
        UserError: no image could be read.
    """
    from bimodal_cl.scoring.zero_shot import encode_labelled, label_features

    encoder = model.encoder

    def encode() -> LabelledFeatures:
        autocast = autocast_type(arguments.precision)
        size, workers = arguments.batch_size, arguments.num_workers
        return encode_labelled(encoder, labelled, size, workers, autocast, show_progress=True, shared=True)

    def restore(entry: Entry) -> LabelledFeatures | None:
        features = entry.tensors["image_features"].to(encoder.device)
        return label_features(encoder, labelled, features, entry.tensors["kept"])

    def keep(encoded: LabelledFeatures) -> Entry:
        return Entry({"image_features": encoded.image_features, "kept": encoded.kept})

    return _encode_or_load(model, arguments, "images", labelled.digest, encode, keep, restore)


def encode_shards(
    model: ScoredModel, data: Manifest, arguments: argparse.Namespace
) -> tuple[PairFeatures, FaultCounts]:
    """Encode every image and caption of shards, and count the faulty samples.

    Args:
        model: the model.
        data: the shards.
        arguments: ``batch_size``, ``num_workers``, ``precision``, ``cache``.

    Raises:
        UserError: too many samples are faulty, or none can be used.
    """
    from bimodal_cl.data import open_stream
    from bimodal_cl.data.shards.faults import Fault, FaultCounts
    from bimodal_cl.distributed import rank, share_of_rank, world_size
    from bimodal_cl.scoring.retrieval import PairFeatures, encode_pairs
    from bimodal_cl.scoring.share_progress import show_share

    device = model.encoder.device

    def encode() -> tuple[PairFeatures, FaultCounts]:
        stream = open_stream(
            data,
            batch_size=arguments.batch_size,
            image_size=model.encoder.image_size,
            rank=rank(),
            world_size=world_size(),
            num_workers=arguments.num_workers,
            train=False,
            eval_transform=model.encoder.transform,
        )
        first, last = share_of_rank(data.num_images)
        batches = show_share(stream, last - first, "images with captions", len, shared=True)
        pairs = encode_pairs(model.encoder, batches, autocast=autocast_type(arguments.precision), shared=True)
        return pairs, stream.report_of_all_ranks()

    def restore(entry: Entry) -> tuple[PairFeatures, FaultCounts]:
        tensors = {name: entry.tensors[name] for name in _OF_PAIRS}
        tensors |= {name: tensors[name].to(device) for name in ("image_features", "text_features")}
        counts = entry.beside["faults"]
        examples = [Fault(**each) for each in counts["examples"]]
        faults = FaultCounts()
        faults.merge(FaultCounts(**{**counts, "examples": examples}))  # warns of the examples
        return PairFeatures(**tensors, captions=entry.beside["captions"]), faults

    def keep(encoded: tuple[PairFeatures, FaultCounts]) -> Entry:
        pairs, faults = encoded
        examples = [asdict(each) for each in faults.examples]
        counts = {"samples": faults.samples, "by_kind": faults.by_kind, "used": faults.used, "examples": examples}
        beside = {"captions": pairs.captions, "faults": counts}
        return Entry({name: getattr(pairs, name) for name in _OF_PAIRS}, beside)

    return _encode_or_load(model, arguments, "pairs", lambda: hash_shards(data), encode, keep, restore)


def _encode_or_load(
    model: ScoredModel,
    arguments: argparse.Namespace,
    what: str,
    hash_data: Callable[[], str | None],
    encode: Callable[[], T],
    keep: Callable[[T], Entry],
    restore: Callable[[Entry], T | None],
) -> T:
    """Return encoded data: from the store where all processes find them there, or else encoded and then stored.

    Args:
        model: the model; its ``features`` records what was found.
        arguments: ``cache``, ``precision``.
        what: the kind of data.
        hash_data: identifies the data by their content; None where that is not possible.
        encode: encodes them.
        keep: converts them for the store.
        restore: converts them back; None where they are no longer those of the data.
    """
    from bimodal_cl.distributed import gather_objects

    if arguments.cache is None:
        return encode()
    store = FeatureStore(arguments.cache)
    # The main process alone identifies them: processes may run on machines that differ.
    identity = gather_objects(_identify(model, arguments, what, hash_data) if is_main_process() else None)[0]
    if identity is None:
        return encode()
    key, data = identity
    entry = store.load(key)
    found = None if entry is None else restore(entry)
    record = {"of": what, "key": key, "data_sha256": data, "from_cache": True}
    model.features.append(record)
    if all(gather_objects(found is not None)):
        assert found is not None
        note(f"features of {what}: taken from {store.path(key)}")
        return found
    record["from_cache"] = False
    encoded = encode()
    # Data that change while they are encoded must not get a name.
    if is_main_process() and _try_hash(what, hash_data) == data:
        store.save(key, keep(encoded))
        note(f"features of {what}: kept in {store.path(key)}")
    return encoded


def _identify(
    model: ScoredModel, arguments: argparse.Namespace, what: str, hash_data: Callable[[], str | None]
) -> tuple[str, str] | None:
    """Return the key of features in the store, and a hash of their data; None where the data have none."""
    data = _try_hash(what, hash_data)
    if data is None:
        return None
    return f"{what}-{hash_values(what, identify_model(model, arguments.precision), data)[:40]}", data


def _try_hash(what: str, hash_data: Callable[[], str | None]) -> str | None:
    try:
        found = hash_data()
    except OSError as error:
        note(f"features of {what}: not kept, since not all data can be read: {one_line(error)}")
        return None
    if found is None:
        note(f"features of {what}: not kept, since the data are not on this machine")
    return found

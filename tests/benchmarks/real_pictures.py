"""Train on emoji of several designers; name concepts nobody drew in training, and one designer's whole hand.

    python tests/benchmarks/real_pictures.py FOLDER --seeds 0 1

FOLDER holds `emoji/`, Parquet files with the columns image, caption, keywords, vendor, fold, core, dup_of;
`fashion-mnist/` {train,test}.parquet with image and label; `coco-open/*.parquet` with image and caption.

Concepts of folds 8 and 9 are held out, and all drawings of one designer. Beside the zero-shot classifier
stands a pixel nearest neighbour: of the designer never seen it looks at the training pictures; of the
concepts never seen, at one labelled drawing of each, which the zero-shot classifier does not.
"""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch
import tyro

from minclip import CLIP, CLIPTokenizer, linear_probe
from minclip.checkpoint import CHECKPOINT
from minclip.data.hub import Pictures, load_pairs, load_pictures
from minclip.data.images import normalize
from minclip.demo import train_on_pairs, write_json
from minclip.measure import describe_machine
from minclip.presets import find_preset
from minclip.probe import probe_features
from minclip.real_pictures import classify_pictures, retrieve_pictures

UNSEEN_FOLDS, UNSEEN_DESIGNER = (8, 9), "fxemoji"
REFERENCE = "noto"  # the designer whose drawings the nearest neighbour may look at, and who drew all concepts
PROBED = 2000  # Fashion-MNIST pictures for the probe to learn from


def load_emoji(folder: Path) -> datasets.Dataset:
    """Drawings but for pixel-identical repeats; `captions` says the name, alone or with its keywords."""
    emoji = datasets.load_dataset(str(folder), split="train").filter(lambda dup: dup is None, input_columns="dup_of")

    def captions(caption, keywords):
        words = ", ".join(keywords or [])
        return {"captions": [caption, f"{caption}, {words}" if words else caption, words or caption]}

    return emoji.map(captions, input_columns=["caption", "keywords"])


def choose(emoji: datasets.Dataset, unseen_concept: bool, designer=lambda vendor: True, core=False) -> datasets.Dataset:
    return emoji.filter(
        lambda fold, vendor, is_core: (
            (fold in UNSEEN_FOLDS) == unseen_concept and designer(vendor) and (is_core or not core)
        ),
        input_columns=["fold", "vendor", "core"],
    )


def pixel_nearest_neighbour(known: Pictures, asked: Pictures) -> float:
    """Share of the asked pictures whose nearest known one, pixel by pixel, has the same caption."""
    distances = torch.cdist(asked.images.flatten(1).float(), known.images.flatten(1).float())
    nearest = distances.argmin(dim=1).tolist()
    return float(np.mean([known.texts[near] == text for near, text in zip(nearest, asked.texts)]))


def name_emoji(model: CLIP, tokenizer: CLIPTokenizer, emoji: datasets.Dataset) -> dict[str, dict[str, float]]:
    """Zero-shot accuracy, chance and nearest neighbour on what was held out."""

    def pictures(*selection, **more) -> Pictures:
        drawings = choose(emoji, *selection, **more)
        return load_pictures(drawings, caption_column="caption", resolution=model.config.image_resolution)

    def others(vendor):
        return vendor not in (UNSEEN_DESIGNER, REFERENCE)

    trained = pictures(False, lambda vendor: vendor != UNSEEN_DESIGNER)
    reference, core = (
        pictures(True, lambda vendor: vendor == REFERENCE),
        pictures(True, lambda v: v == REFERENCE, core=True),
    )
    results = {}
    for name, asked, known in (
        ("concepts never seen", pictures(True, others), reference),
        ("concepts never seen, things alone", pictures(True, others, core=True), core),
        ("designer never seen", pictures(False, lambda vendor: vendor == UNSEEN_DESIGNER), trained),
        ("neither ever seen", pictures(True, lambda vendor: vendor == UNSEEN_DESIGNER), reference),
    ):
        results[name] = classify_pictures(model, tokenizer, asked, sorted(set(known.texts)))
        results[name]["pixel_nearest_neighbour"] = pixel_nearest_neighbour(known, asked)
    return results


def probe_fashion(model: CLIP, folder: Path) -> dict[str, float]:
    """Linear probes of the trained encoder, of the same one untrained, and of raw pixels."""
    train, test = (
        load_pictures(folder / f"{part}.parquet", caption_column="label", resolution=model.config.image_resolution)
        for part in ("train", "test")
    )
    chosen = np.random.default_rng(0).permutation(len(train.texts))[:PROBED]
    labels, test_labels = np.array(train.texts)[chosen], np.array(test.texts)
    torch.manual_seed(1)
    untrained = CLIP(model.config).to(model.logit_scale.device)
    features = {
        "trained on emoji": lambda images: probe_features(model, normalize(images)),
        "untrained": lambda images: probe_features(untrained, normalize(images)),
        "raw pixels": lambda images: images[:, 0].flatten(1).float().numpy() / 255,  # they are grey
    }
    return {
        name: linear_probe(encode(train.images[chosen]), labels, encode(test.images), test_labels).accuracy
        for name, encode in features.items()
    }


def main(
    folder: tyro.conf.Positional[Path],
    images_seen: int = 150_000,
    seeds: tuple[int, ...] = (0,),
    runs: Path = Path("runs/emoji"),
) -> None:
    """Train by the "cpu" recipe and measure.

    folder: of the data
    images_seen: in training
    seeds: a run each
    runs: a folder for the models, and results.json; a run that was broken off is resumed
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    emoji = load_emoji(folder / "emoji")
    training = choose(emoji, False, lambda vendor: vendor != UNSEEN_DESIGNER)
    report = {"machine": describe_machine(device), "trained_on": len(training), "images_seen": images_seen, "runs": []}
    for seed in seeds:
        preset, run = find_preset("cpu"), runs / str(seed)
        preset = replace(preset, train=replace(preset.train, images_seen=images_seen, seed=seed))
        pairs = load_pairs(training, caption_column="captions", resolution=preset.model.image_resolution, device=device)
        resume = (run / CHECKPOINT).exists()
        model, tokenizer, records = train_on_pairs(preset, pairs, pairs.sample_captions(), run, device, resume)
        photographs = load_pictures(str(folder / "coco-open" / "*.parquet"), resolution=preset.model.image_resolution)
        results = {
            "seed": seed,
            "loss": records[-1]["loss"],
            "emoji": name_emoji(model, tokenizer, emoji),
            "photographs": retrieve_pictures(model, tokenizer, photographs),
            "fashion_probe": probe_fashion(model, folder / "fashion-mnist"),
        }
        report["runs"].append(results)
        print(json.dumps(results, indent=1))
        write_json(runs / "results.json", report)


if __name__ == "__main__":
    tyro.cli(main)

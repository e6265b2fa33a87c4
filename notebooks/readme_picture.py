"""Draws the README's picture: characters, drawn by lot, whose names the bundled model never saw in training, and
what it calls them.

    python notebooks/readme_picture.py FILE
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minclip
from minclip import plots
from minclip.data.glyphs import load_atlas
from minclip.data.tasks import glyph_tasks
from minclip.evaluation import evaluate_task

MODEL, SHOWN, COLUMNS, GUESSES = "glyphs-tiny", 12, 2, 3  # the demo's model


def guesses() -> list[tuple[np.ndarray, str, list[str], np.ndarray]]:
    """For each of some pictures: itself, its name, the likeliest names, and their probabilities."""
    model, tokenizer = minclip.load(MODEL)
    task = glyph_tasks(load_atlas(model.config.image_resolution))["unseen-names"]
    task = task.select(np.random.default_rng(0).choice(len(task), SHOWN, replace=False))
    best = evaluate_task(model, tokenizer, task).logits.softmax(dim=-1).topk(GUESSES)
    names = [[task.class_names[place] for place in row] for row in best.indices]
    truths = [task.class_names[label] for label in task.labels]
    return list(zip(task.images, truths, names, best.values.numpy()))


def draw(results) -> None:
    """What `guesses` returned, a picture beside its likeliest names as bars."""
    figure = plt.figure(figsize=(10, 0.92 * SHOWN / COLUMNS))
    grid = figure.add_gridspec(SHOWN // COLUMNS, 2 * COLUMNS, width_ratios=[1, 5] * COLUMNS)
    for place, (image, truth, names, probabilities) in enumerate(results):
        row, column = divmod(place, COLUMNS)
        picture = figure.add_subplot(grid[row, 2 * column])
        picture.imshow(plots.as_picture(image))
        picture.axis("off")
        bars = figure.add_subplot(grid[row, 2 * column + 1])
        colours = [plots.GREEN if name == truth else plots.GREY for name in names]
        bars.barh(range(GUESSES), probabilities, color=colours, alpha=0.5)
        for line, (name, probability) in enumerate(zip(names, probabilities)):
            bars.text(0.01, line, name, va="center", fontsize=9)
            percent = f"{probability:.0%}" if probability >= 0.005 else "< 1%"
            bars.text(1.1, line, percent, ha="right", va="center", fontsize=9)
        bars.set(xlim=(0, 1.1), ylim=(GUESSES - 0.5, -0.6))
        bars.set_title(truth, fontsize=9, fontweight="bold", pad=2)
        bars.axis("off")


if __name__ == "__main__":
    plots.write(draw, guesses(), Path(sys.argv[1]))

"""A run on one self-contained page: curves, similarity matrix, tasks, right and wrong examples."""

import base64
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Template

from . import plots
from .checkpoint import write_atomically
from .clip import CLIP
from .data.glyphs import Atlas
from .data.images import preprocess
from .data.painting import GlyphPairs, Paint
from .evaluation import TaskResult
from .tokenizer import CLIPTokenizer
from .zeroshot import encode_images, encode_texts

TEMPLATE = Path(__file__).with_name("report.html")
SHOWN = 16  # examples of each kind, and pairs in the similarity matrix


def write_report(
    path: Path, figures: dict, records: list[dict], results: dict[str, TaskResult],
    model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas, batch_size: int,
) -> None:  # fmt: skip
    """Write report.html. `figures` is what results.json holds, `results` what `evaluate_glyphs` returned."""
    with plt.rc_context():
        plots.use_style()
        pictures = {
            "curves": drawn(plots.training_curves, records, batch_size),
            "matrix": drawn(similarities, model, tokenizer, atlas),
            "tasks": drawn(plots.task_accuracies, figures["zero_shot"], figures["chance"]),
        }
        for name in ("unseen-names", "handwritten-digits"):
            for kind in ("right", "wrong"):
                pictures[f"{name} {kind}"] = drawn(examples, results[name], kind == "right")
    page = Template(TEMPLATE.read_text(), autoescape=True).render(figures=figures, pictures=pictures)
    write_atomically(path, lambda file: file.write(page.encode()))


def drawn(draw, *arguments) -> str:
    """The figure that `draw(*arguments)` leaves behind, as a data URL."""
    draw(*arguments)
    buffer = io.BytesIO()
    plt.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close("all")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def similarities(model: CLIP, tokenizer: CLIPTokenizer, atlas: Atlas) -> None:
    """Cosines between some painted pictures of never-trained names and their captions."""
    images, captions = GlyphPairs(atlas.unseen_names(), Paint()).batch(SHOWN)
    image_features = encode_images(model, preprocess(images, model.config))
    cosines = image_features @ encode_texts(model, tokenizer, captions).T
    shortened = [caption if len(caption) <= 34 else caption[:33] + "…" for caption in captions]
    plots.matrix(cosines.cpu(), rows=list(images.cpu()), columns=shortened, label="cosine similarity")


def examples(result: TaskResult, right: bool) -> None:
    """Some pictures that were named rightly, or wrongly with both names."""
    task, predicted = result.task, result.predicted
    rows = np.flatnonzero((predicted == task.labels) == right)
    rows = np.random.default_rng(0).permutation(rows)[:SHOWN]
    if len(rows) == 0:
        plt.figure(figsize=(3, 0.5)).text(0, 0.3, "There are none.")
        return
    captions = [
        task.class_names[predicted[i]] if right
        else f"{task.class_names[predicted[i]]} (was: {task.class_names[task.labels[i]]})"
        for i in rows
    ]  # fmt: skip
    plots.pictures(list(task.images[rows]), captions, side=1.45, size=8)

"""A classifier is a list of names: edit it, and watch the errors move (section 3.1.4; 7.1 on class design).

Notebook 06, and 11 on limits and class design.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
from ipywidgets import HTML, Button, HBox, Textarea, VBox

from .. import plots
from ..data.images import preprocess
from ..data.tasks import Task
from ..errors import MinclipError
from ..zeroshot import encode_images, zero_shot_classifier
from .parts import Frame, check_model, drawn, lines_of, note, trouble

SHOWN = 30  # rows and columns of the table; of larger tasks those with most errors


class ClassifierDesigner(Frame):
    """Edit class names and templates of a task; accuracy, accuracy by class and confusion change at once.

    task: a `minclip.data.tasks.Task`. For pictures of your own, and for lesson 11's questions of class design:
        `Task("name", images, labels, class_names, ("{}",), "about")`, images (N, S, S, 3) uint8, labels (N,)
    class_names: what to call its K classes, to begin with; a line each, always K of them
    templates: captions with {} for the class name; a line each
    distractors: names of classes that no picture shows, to begin with

    After each edit: `accuracy`, a share; `per_class` (K,); `confusion`, counts (K, K + distractors), a row for
    each true class and a column for each name; `started`, the accuracy of the names given here. To edit from
    a cell, set `names.value`, `templates.value` or `distractors.value`: text, a line for each.

    Raises MinclipError for something that is no model, or a first list of names that is no classifier.
    """

    def __init__(
        self, model, tokenizer, task: Task, class_names: Sequence[str] | None = None,
        templates: str | Sequence[str] = ("{}",), distractors: Sequence[str] = (),
    ):  # fmt: skip
        check_model(model, tokenizer)
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.features = encode_images(model, preprocess(task.images, model.config)).cpu()
        self.labels = np.asarray(task.labels)
        self.counts = np.bincount(self.labels, minlength=len(task.class_names))
        templates = [templates] if isinstance(templates, str) else list(templates)
        first = ["\n".join(lines) for lines in (class_names or task.class_names, templates, distractors)]

        def box(value: str, description: str, rows: int, words: str) -> Textarea:
            return Textarea(
                value, description=description, rows=rows, tooltip=words, placeholder=words,
                layout={"width": "calc(100% - 8px)"}, style={"description_width": "84px"}, continuous_update=True,
            )  # fmt: skip

        rows = min(12, max(4, len(task.class_names)))
        self.names = box(
            first[0], "Classes", rows, f"A name for each of the {len(task.class_names)} classes, a line each"
        )
        self.templates = box(first[1], "Templates", 3, "Captions with {} where the name goes, a line each")
        self.distractors = box(first[2], "Distractors", 3, "Names that no picture shows, a line each")
        self.reset = Button(
            description="As at the start", icon="undo", tooltip="Put the first names and templates back"
        )
        self.message, self.table = HTML(), HTML()
        left = VBox(
            [self.names, self.templates, self.distractors, self.reset], layout={"width": "330px", "flex": "1 1 300px"}
        )
        right = VBox([self.message, self.table], layout={"flex": "2 1 460px", "overflow": "auto"})
        super().__init__(HBox([left, right], layout={"flex_flow": "row wrap", "grid_gap": "10px"}))
        self._classify()
        self.started, self._started_per_class = self.accuracy, self.per_class
        self._show()
        for text, value in zip((self.names, self.templates, self.distractors), first):
            text.observe(self._edited, "value")
            self.reset.on_click(lambda _, text=text, value=value: setattr(text, "value", value))

    def _classify(self) -> None:
        """Raises MinclipError where the boxes do not hold a classifier."""
        names, distractors = lines_of(self.names.value), lines_of(self.distractors.value)
        classes = len(self.task.class_names)
        if len(names) != classes:
            raise MinclipError(
                f"The task has {classes} classes and the box {len(names)} names; give one a line, in the task's order: "
                f"{', '.join(self.task.class_names[:3])}{', ...' if classes > 3 else ''}. More names go under Distractors."
            )
        class_names, templates = names + distractors, lines_of(self.templates.value)
        classifier = zero_shot_classifier(self.model, self.tokenizer, class_names, templates).cpu()
        self.class_names = class_names
        said = (self.features @ classifier).argmax(dim=1).numpy()
        self.confusion = np.zeros((classes, len(self.class_names)), dtype=int)
        np.add.at(self.confusion, (self.labels, said), 1)
        self.per_class = self.confusion.diagonal() / np.maximum(1, self.counts)
        self.accuracy = self.confusion.trace() / len(self.labels)

    def _edited(self, _) -> None:
        try:
            self._classify()
        except MinclipError as error:
            self.message.value = trouble(f"{error} Below is the last classifier that could be made.")
            return
        self._show()

    def _show(self) -> None:
        change = 100 * (self.accuracy - self.started)
        taken = self.confusion[:, len(self.task.class_names) :].sum()
        words = f"{self.accuracy:.1%} of {len(self.labels):,} pictures right ({change:+.1f} points since the start), "
        words += f"chance {1 / len(self.class_names):.1%}."
        if len(self.class_names) > len(self.task.class_names):
            words += f" Distractors take {taken / len(self.labels):.1%}."
        self.message.value = f'<div style="font-size: 15px">{note(words)}</div>'
        self.table.value = self._table()

    def _shown(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the columns that the table has room for, in order."""
        errors = self.confusion.sum(axis=1) - self.confusion.diagonal()
        rows = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])
        taken = self.confusion[rows].sum(axis=0).astype(float)
        taken[rows] = np.inf  # the classes themselves
        return rows, np.sort(np.argsort(-taken, kind="stable")[: max(SHOWN, len(rows))])

    def _table(self) -> str:
        rows, columns = self._shown()
        upright = "writing-mode: vertical-rl; transform: rotate(180deg); max-height: 150px; font-weight: normal; white-space: nowrap;"
        head = "".join(
            f'<th scope="col"{CROSS}><div style="{upright}">{escape(self.class_names[j])}</div></th>' for j in columns
        )
        lines = []
        for i in rows:
            moved = 100 * (self.per_class[i] - self._started_per_class[i])
            arrow = "" if abs(moved) < 0.05 else f"{moved:+.0f}"
            cells = "".join(self._cell(i, j) for j in columns)
            lines.append(
                f'<tr><th scope="row" style="font-weight: normal; white-space: nowrap">{escape(self.class_names[i])}</th>'
                f"<td>{bar(self.per_class[i])}</td><td>{arrow}</td>{cells}</tr>"
            )
        part = (
            "" if len(rows) == len(self.counts) else f" The {len(rows)} classes with most errors of {len(self.counts)}."
        )
        return (
            f'<table class="minclip-table"><caption>True class down, name given across, in % of the row.{part}</caption>'
            f'<thead><tr><th scope="col">class</th><th scope="col">right</th><th scope="col">change</th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table>"
        )

    def _cell(self, i: int, j: int) -> str:
        share = self.confusion[i, j] / max(1, self.counts[i])
        colour = "0, 114, 178" if i == j else "213, 94, 0"  # right in blue, wrong in vermilion
        number = f"{100 * share:.0f}" if share >= 0.005 else ""
        return f'<td style="background: rgba({colour}, {0.75 * share:.2f}); text-align: center; min-width: 20px">{number}</td>'

    def picture(self) -> bytes:
        """The confusion as PNG."""
        rows, columns = self._shown()
        share = 100 * self.confusion[rows][:, columns] / np.maximum(1, self.counts[rows, None])
        names = [self.class_names[j] for j in columns]
        title = f"{self.accuracy:.1%} right; confusion in % of the row"
        return drawn(
            lambda: plots.matrix(
                share, rows=[self.class_names[i] for i in rows], columns=names, numbers=".0f", label="% of the row",
                limit=100,
            ),
            title,
        )  # fmt: skip


CROSS = ' style="vertical-align: bottom; padding: 2px 4px"'


def bar(share: float) -> str:
    """A share as a bar with its number."""
    return (
        f'<div style="display: flex; align-items: center; gap: 6px"><div style="width: 60px; background: rgba(127, 127, 127, 0.25)">'
        f'<div style="width: {100 * share:.0f}%; height: 10px; background: #0072B2"></div></div>{share:.0%}</div>'
    )

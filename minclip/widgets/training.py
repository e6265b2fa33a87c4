"""A training run to watch, in a thread, so that the notebook goes on answering. Notebook 05."""

import asyncio
import copy
import math
import signal
import threading
import time
import weakref

import numpy as np
import torch
from ipywidgets import HTML, Button, HBox, IntProgress

from .. import plots
from ..data.images import preprocess
from ..errors import MinclipError
from ..train import Pairs, TrainConfig, fit
from ..zeroshot import encode_images, encode_texts
from .parts import Frame, as_png, check_model, image_html, new_figure, note, trouble

REDRAW = 0.4  # seconds between pictures, so that drawing takes little from training

_begun = weakref.WeakSet()  # windows that began a run


class Stopped(Exception):
    """The reader let go of the run."""


class TrainingWindow(Frame):
    """Start, pause and resume `minclip.fit`, and watch the similarity matrix of a fixed batch turn diagonal.

    model: trained in place; "Start again" begins from the weights it has now
    pairs: what to train on; config: how, and how often to look (`log_every`)
    watched: (images, captions), the batch of the matrix; by default the first 16 pairs of a stream with another seed

    Training runs in a thread: other cells can be run meanwhile. Interrupting the kernel while no cell runs
    pauses it. One window trains at a time: a new one, or its run, lets go of the run of any other. `records`
    are `fit`'s; `cosines` is the matrix; `state` is "ready", "running", "paused", "finished" or "failed";
    `wait()` blocks until the run is over.

    Raises MinclipError for something that is no model.
    """

    def __init__(
        self, model, tokenizer, pairs: Pairs, config: TrainConfig, watched: tuple[torch.Tensor, list[str]] | None = None
    ):
        check_model(model, tokenizer)
        close_runs()  # of the window that this cell showed before: nobody sees it any more
        self.model, self.tokenizer, self.pairs, self.config = model, tokenizer, pairs, config
        self.first_weights = copy.deepcopy(model.state_dict())
        images, self.captions = watched or next(pairs.batches(16, config.seed + 1, 0))
        self.images = preprocess(images, model.config)
        self.state, self.records, self.thread = "ready", [], None
        self._go = threading.Event()  # cleared: the run waits
        self._stop = False

        self.start = Button(description="Start", icon="play", button_style="primary", tooltip="Start, or start again")
        self.pause = Button(description="Pause", icon="pause", disabled=True, tooltip="Pause, or resume")
        self.bar = IntProgress(0, 0, config.steps, description="step 0", layout={"width": "min(460px, 100%)"})
        self.message, self.image = HTML(), HTML()
        buttons = HBox([self.start, self.pause, self.bar], layout={"flex_flow": "row wrap"})
        super().__init__(buttons, self.message, self.image)
        self.start.on_click(lambda _: self.begin())
        self.pause.on_click(lambda _: self.toggle())
        self._draw_axes()
        self._look()
        self._show(f"{config.steps} steps of {config.batch_size} pairs. Press Start; cells below can be run meanwhile.")

    def begin(self) -> None:
        """Start, from the weights that the model had when the window was made; a run under way is let go of."""
        close_runs()
        _begun.add(self)
        self.model.load_state_dict(self.first_weights)
        self.records, self.state, self._stop = [], "running", False
        self._go.set()
        self._buttons()
        self.thread = threading.Thread(target=self._run, name="minclip training", daemon=True)
        self.thread.start()
        pause_on_interrupt(self)

    def toggle(self) -> None:
        """Pause a run, or resume it, at its next logged step."""
        if self.state == "running":
            self._go.clear()
            self.state = "paused"
        elif self.state == "paused":
            self.state = "running"
            self._go.set()
        self._buttons()

    def wait(self) -> list[dict]:
        """Block until the run is over; returns its records. Interrupting the kernel pauses the run."""
        try:
            while self.thread is not None and self.thread.is_alive():
                self.thread.join(0.1)
        except KeyboardInterrupt:
            if self.state == "running":
                self.toggle()
            raise
        return self.records

    def close_run(self) -> None:
        """Let go of a run under way, if any; it ends at its next logged step."""
        self._stop = True
        self._go.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

    # From here on, in the thread.

    def _run(self) -> None:
        self._drawn = 0.0
        try:
            fit(self.model, self.tokenizer, self.pairs, self.config, on_log=self._logged)
            self.state = "finished"
            self._look()
            self._show("Finished. ")
        except Stopped:
            self.state = "ready"
        except Exception as error:  # in a thread nobody else would tell the reader
            self.state = "failed"
            kind = "" if isinstance(error, MinclipError) else f"{type(error).__name__}: "
            self.message.value = trouble(f"{kind}{error}")
        self._buttons()

    def _logged(self, record: dict) -> None:
        self.records.append(record)
        if time.perf_counter() - self._drawn > REDRAW:
            self._look()
            self._show("")
            self._drawn = time.perf_counter()
        if not self._go.is_set():
            self._look()
            self._show("Paused. ")
            self._go.wait()
        if self._stop:
            raise Stopped

    def _look(self) -> None:
        u, v = encode_images(self.model, self.images), encode_texts(self.model, self.tokenizer, self.captions)
        self.cosines = (u @ v.T).cpu().numpy()

    def _buttons(self) -> None:
        under_way = self.state in ("running", "paused")
        self.start.description = "Start" if self.state == "ready" and not self.records else "Start again"
        self.pause.disabled = not under_way
        self.pause.description = "Resume" if self.state == "paused" else "Pause"
        self.pause.icon = "play" if self.state == "paused" else "pause"

    def _draw_axes(self) -> None:
        self.figure, (left, right) = new_figure(9, 3.6, 2, width_ratios=[1, 1.3])
        self.figure.subplots_adjust(left=0.05, right=0.97, bottom=0.16, top=0.9, wspace=0.5)
        count = len(self.captions)
        self.matrix = left.imshow(np.zeros((count, count)), cmap=plots.SIGNED, vmin=-1, vmax=1)
        self.figure.colorbar(self.matrix, ax=left, label="cosine", fraction=0.046, pad=0.03)
        left.set(xticks=[], yticks=[], xlabel=f"{count} captions", ylabel=f"{count} pictures", title="similarity")
        left.grid(False)
        (self.curve,) = right.plot([], [])
        n = self.config.batch_size
        right.axhline(math.log(n), color=plots.GREY, linestyle="--", linewidth=1.2)
        right.text(0.99, math.log(n), f"ln {n}: guessing ", color=plots.GREY, ha="right", va="bottom",
                   transform=right.get_yaxis_transform())  # fmt: skip
        right.set(
            xlabel="step", ylabel="loss, nats", xlim=(0, self.config.steps), ylim=(0, 1.25 * math.log(n)), title="loss"
        )

    def _show(self, words: str) -> None:
        self.matrix.set_data(self.cosines)
        self.curve.set_data([r["step"] for r in self.records], [r["loss"] for r in self.records])
        count = len(self.cosines)
        own = self.cosines.diagonal().mean()
        other = (self.cosines.sum() - self.cosines.trace()) / (count * count - count)
        right = (self.cosines.argmax(axis=1) == np.arange(count)).sum()
        if self.records:
            last = self.records[-1]
            self.bar.value, self.bar.description = last["step"], f"step {last['step']}"
            words += f"Loss {last['loss']:.2f} nats, scale {last['logit_scale']:.1f}. "
        words += (
            f" Mean cosine: true pairs {own:.2f}, others {other:.2f}; {right} of {count} pictures choose their caption."
        )
        self.message.value = note(words)
        self.image.value = image_html(as_png(self.figure), f"Similarity matrix, and the loss over the run. {words}")

    def picture(self) -> bytes:
        """Matrix and loss as PNG."""
        return as_png(self.figure)


def close_runs() -> None:
    """Let go of every window's run under way."""
    for window in list(_begun):
        window.close_run()


def pause_on_interrupt(window: TrainingWindow) -> None:
    """While the run lasts, let an interrupt of an idle kernel pause it. (In a busy one it stops the cell, as ever.)

    ipykernel sets its own handler while it works on a message and puts the former back; so ours is set after.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no kernel
        return
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        return

    def install() -> None:
        before = signal.signal(signal.SIGINT, lambda *_: window.toggle() if window.state == "running" else None)

        def restore() -> None:
            if window.thread.is_alive():
                loop.call_later(0.5, restore)
            else:
                signal.signal(signal.SIGINT, before)

        restore()

    loop.call_later(0.2, install)

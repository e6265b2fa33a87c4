"""The training loop (paper, section 2.5): AdamW, warm-up and cosine, and nothing lost.

`fit` trains a CLIP on a stream of pairs. With a run folder it leaves checkpoints that are complete
(weights, optimiser, place in the data, random states) and atomic, so that a run killed at any moment
goes on to the same bits. Notebook 05. Under torchrun several processes share each batch. Notebook 12.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton
from tqdm import tqdm

from . import distributed
from .checkpoint import (
    CHECKPOINT,
    append_metrics,
    random_states,
    read_checkpoint,
    read_metrics,
    restore_random_states,
    rewind_metrics,
    set_aside_earlier_run,
    write_checkpoint,
)
from .clip import CLIP
from .data.images import normalize, to_device
from .errors import MinclipError
from .gradient_cache import backward_in_chunks
from .loss import distributed_contrastive_loss
from .tokenizer import CLIPTokenizer


class Pairs(Protocol):
    """A stream of captioned pictures in an order that (seed, place in the stream) fixes."""

    def batches(
        self, batch_size: int, seed: int, start: int, stride: int | None = None
    ) -> Iterator[tuple[torch.Tensor, list[str]]]:
        """Yield (images (B, 3, R, R), uint8 or float in [0, 1]; B captions) from picture `start` on.

        Each batch begins `stride` pictures after the one before, or where that ended: so several
        processes take turns. A single process never asks for a stride.
        """


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The optimiser's defaults are the paper's for Vision Transformers (Table 19), but for
    the learning rate, which a small model wants higher, and a warm-up that takes more of a short run."""

    images_seen: int = 150_000  # pictures in all; rounded down to whole batches
    batch_size: int = 128  # pairs contrasted with each other in a step, over all processes
    chunk: int | None = None  # pairs a process embeds at a time; None: all. Saves memory, costs a forward pass
    lr: float = 1e-3
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    warmup: float = 0.2  # share of the steps over which the learning rate climbs
    clip_grad: float = 1.0  # longest gradient, as a norm over all parameters
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False  # torch.compile; pays on long GPU runs, not on a laptop's minute
    checkpoint_every: int = 200  # steps
    log_every: int = 10  # steps

    def __post_init__(self):
        if self.batch_size < 2:
            raise MinclipError(f"batch_size is {self.batch_size}; a contrast needs at least 2 pairs.")
        if self.chunk is not None and self.chunk < 1:
            raise MinclipError(f"chunk is {self.chunk}; give the pairs to embed at a time, at least 1, or none.")
        if self.steps < 1:
            raise MinclipError(f"images_seen {self.images_seen} is less than one batch of {self.batch_size}.")
        if not 0 <= self.warmup < 1:
            raise MinclipError(f"warmup is {self.warmup}; give the share of steps, at least 0 and below 1.")
        for name in ("checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise MinclipError(f"{name} is {getattr(self, name)}; give a number of steps, at least 1.")
        for name in ("lr", "eps", "clip_grad"):
            if not 0 < getattr(self, name) < math.inf:
                raise MinclipError(f"{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise MinclipError(f"{name} is {getattr(self, name)}; give a number at least 0 and below 1.")
        if not 0 <= self.weight_decay < math.inf:
            raise MinclipError(f"weight_decay is {self.weight_decay}; it must be at least 0.")
        if not 0 <= self.seed < 2**63:
            raise MinclipError(f"seed is {self.seed}; give a whole number from 0 up, below 2**63.")
        if self.precision not in ("float32", "bfloat16"):
            raise MinclipError(f"precision is {self.precision!r}; there are 'float32' and 'bfloat16'.")

    @property
    def steps(self) -> int:
        return self.images_seen // self.batch_size


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero; `step` counts from 0."""
    warmup = int(config.steps * config.warmup)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices alone: not on gains, biases or the temperature (section 2.5)."""
    decay = [p for p in model.parameters() if p.ndim >= 2]
    no_decay = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def fit(
    model: CLIP,
    tokenizer: CLIPTokenizer,
    pairs: Pairs,
    config: TrainConfig = TrainConfig(),
    run: str | Path | None = None,
    resume: bool = False,
    on_log: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train `model` in place, on its own device, and leave it in evaluation mode; returns one record a
    logged step.

    run: folder for `checkpoint.pt` and `metrics.jsonl`; None keeps nothing
    resume: go on from the run's checkpoint, to the same bits as an unbroken run on this machine; on a GPU, which may
        add up in another order each time, to the same but for rounding
    on_log: called with each record: step, images_seen, loss, logit_scale, lr, seconds

    Within `distributed.joined` each process trains on its share of each batch, to the weights that one
    process would reach, but for rounding; the first one alone writes, logs and shows progress.

    Raises MinclipError when the batch cannot be shared out among the processes, or leaves a ResNet a
    picture by itself; when there are fewer GPUs than processes, or nothing to compile with; when the loss
    stops being finite, when the run folder cannot be written, or holds the checkpoint of another model or
    configuration, or when another process is lost; KeyboardInterrupt, once the step is done and saved, on
    Ctrl-C.
    """
    device = model.logit_scale.device
    folder = Path(run) if run is not None else None
    first = distributed.rank() == 0
    check_normalizable(model, config)  # complain before any work is done
    check_compilable(device, config)
    distributed.check_device(device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise MinclipError(
            f"The tokenizer has {tokenizer.vocab_size} entries, the model {model.config.vocab_size}; "
            "make the model with vocab_size=tokenizer.vocab_size."
        )
    optimizer = make_optimizer(model, config)
    step, records = resume_from(folder, model, tokenizer, pairs, optimizer, config) if resume else (0, [])
    if folder is not None and first and not resume:
        set_aside_earlier_run(folder)
    forward = prepare(model, config)
    stream = own_batches(pairs, config, step)
    began = time.perf_counter() - (records[-1]["seconds"] if records else 0.0)

    def save() -> None:
        states = {kind: distributed.gather(state) for kind, state in random_states().items()}  # of every process
        if folder is not None and first:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            about = {"model_config": asdict(model.config), "train_config": asdict(config) | paint_config(pairs)}
            write_checkpoint(folder, state | about | {"tokenizer": tokenizer.to_json(), "random_states": states})
        distributed.wait()  # whoever goes on knows that it is written

    model.train()
    stands = f"The last checkpoint in {folder} stands; --resume goes on from it." if folder else "Nothing was saved."
    with progress_bar(step, config) as progress, catch_interrupts() as interrupts, distributed.mourning(stands):
        if not resume:
            save()  # of step 0, so that a run may be killed before its first checkpoint, too
        while step < config.steps:
            images, captions = next_batch(stream, step, config)
            tokens = tokenizer(captions)
            set_learning_rate(optimizer, learning_rate(step, config))
            images, tokens = to_device(images, device), to_device(tokens, device)
            loss = train_step(forward, model, optimizer, images, tokens, config)
            step += 1
            progress.update(config.batch_size)

            interrupted = distributed.any_of_us(bool(interrupts))
            saving = step % config.checkpoint_every == 0 or step == config.steps or interrupted
            if step % config.log_every == 0 or saving:  # reading the loss waits for the device: not each step
                record = {
                    "step": step, "images_seen": step * config.batch_size, "loss": distributed.mean(loss).item(),
                    "logit_scale": model.logit_scale.exp().item(), "lr": learning_rate(step - 1, config),
                    "seconds": time.perf_counter() - began,
                }  # fmt: skip
                check_finite(record, folder)
                records.append(record)
                progress.set_postfix(loss=f"{record['loss']:.3f}", scale=f"{record['logit_scale']:.0f}", refresh=False)
                if folder is not None and first:
                    append_metrics(folder, record)
                if on_log is not None and first:
                    on_log(record)
            if saving:
                save()
            if interrupted:
                where = f"Saved in {folder}; add --resume to go on" if folder else "No run folder, so nothing was saved"
                raise KeyboardInterrupt(f"Stopped after step {step} of {config.steps}. {where}.")
    model.eval()
    return records


class Encoder(torch.nn.Module):
    """Pictures as they come -> features, in the run's precision: all that a step computes before the
    loss, compiled if asked, as one module for DistributedDataParallel to wrap."""

    def __init__(self, model: CLIP, config: TrainConfig):
        super().__init__()
        self.model, self.precision = torch.compile(model) if config.compile else model, config.precision

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch._dynamo.maybe_mark_dynamic(tokens, 1)  # a batch's longest caption sets it: compile once for all lengths
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.model(normalize(images), tokens)


def check_normalizable(model: CLIP, config: TrainConfig) -> None:
    """Raises MinclipError where BatchNorm would meet one number a channel, which has no spread: a ResNet's
    last stage sees a picture of 32 px as a single place."""
    share = distributed.share(config.batch_size)
    chunk = min(config.chunk or share, share)
    if model.config.is_resnet and model.config.image_resolution == 32 and 1 in (chunk, share % chunk):
        raise MinclipError(
            f"A ResNet cannot normalise one picture of 32 px by itself, but a process has {share} of batch_size "
            f"{config.batch_size}, and in chunks of {chunk} one is left alone. Change batch_size or chunk."
        )


def check_compilable(device: torch.device, config: TrainConfig) -> None:
    """Raises MinclipError where torch.compile could make no code for the GPU."""
    if config.compile and device.type == "cuda" and not has_triton():
        raise MinclipError(
            "torch.compile needs Triton, and a GPU that Triton knows, and does not find both here. Train without: "
            "--train.no-compile."
        )


def prepare(model: CLIP, config: TrainConfig) -> torch.nn.Module:
    """What `train_step` calls: the model as the run wants it, one of several if we are."""
    forward = Encoder(model, config)
    return DistributedDataParallel(forward) if distributed.world_size() > 1 else forward


def own_batches(pairs: Pairs, config: TrainConfig, step: int) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """This process's share of each batch, from `step` on: alone, the whole."""
    share = distributed.share(config.batch_size)
    start = step * config.batch_size + distributed.rank() * share
    if share == config.batch_size:
        return pairs.batches(share, config.seed, start)
    return pairs.batches(share, config.seed, start, stride=config.batch_size)


def next_batch(stream: Iterator, step: int, config: TrainConfig) -> tuple[torch.Tensor, list[str]]:
    """Raises MinclipError where the data end before the run does."""
    try:
        return next(stream)
    except StopIteration:
        raise MinclipError(
            f"The data ended after {step * config.batch_size:,} pictures; {config.images_seen:,} were asked for. "
            "Give pairs that go round for ever, or a smaller images_seen."
        ) from None


def train_step(forward, model: CLIP, optimizer, images, tokens, config: TrainConfig) -> torch.Tensor:
    """One step of the optimiser on one batch; `forward` is what `prepare` made of the model.

    Returns the loss (of this process's pairs, if there are several), still on the device.
    """
    optimizer.zero_grad()
    if config.chunk is None or config.chunk >= len(images):
        loss = distributed_contrastive_loss(*forward(images, tokens))
        loss.backward()
    else:
        loss = backward_in_chunks(forward, images, tokens, config.chunk)
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
    optimizer.step()
    model.clamp_logit_scale()
    return loss.detach()


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def resume_from(
    folder: Path | None, model: CLIP, tokenizer: CLIPTokenizer, pairs: Pairs, optimizer, config: TrainConfig
) -> tuple[int, list[dict]]:
    """Put model, optimiser and random states back; returns the step reached and the records so far.

    Raises MinclipError where there is no checkpoint, or it belongs to another model, tokenizer or configuration.
    """
    if folder is None:
        raise MinclipError("To resume, name the run folder (run=...) that holds the checkpoint.")
    checkpoint = read_checkpoint(folder)
    for what, saved, asked in (
        ("model", checkpoint["model_config"], asdict(model.config)),
        ("training", checkpoint["train_config"], asdict(config) | paint_config(pairs)),
    ):
        differing = [key for key in asked if saved.get(key, asked[key]) != asked[key]]  # older ones lack some
        if differing:
            changes = ", ".join(f"{key} {saved.get(key)!r} there, {asked[key]!r} here" for key in differing)
            raise MinclipError(
                f"The checkpoint in {folder} was made with another {what} configuration ({changes}). "
                "Resume with the same one, or start anew in another folder."
            )
    if len(distributed.gather(torch.tensor(checkpoint["step"])).unique()) > 1:
        raise MinclipError(f"Processes found different checkpoints in {folder}; name a folder that all of them share.")
    if checkpoint["tokenizer"] != tokenizer.to_json():
        raise MinclipError(
            f"The checkpoint in {folder} was made with another tokenizer, as one learned from other captions is. "
            "Resume with the same fonts or data set, or start anew in another folder."
        )
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    every = checkpoint["random_states"]  # one row a process; if there are more of us now, some share
    # A copy, because torch reads a generator's state from the beginning of its storage, whatever the view.
    restore_random_states({kind: rows[distributed.rank() % len(rows)].clone() for kind, rows in every.items()})
    if distributed.rank() == 0:
        rewind_metrics(folder, checkpoint["step"])
    return checkpoint["step"], read_metrics(folder, checkpoint["step"])


def paint_config(pairs: Pairs) -> dict:
    """How painted pairs are painted, which decides their pictures as the seed does; of others, nothing."""
    paint = getattr(pairs, "paint", None)
    return asdict(paint) if is_dataclass(paint) else {}


def check_finite(record: dict, folder: Path | None) -> None:
    """Raises MinclipError, before anything is overwritten, when the loss is NaN or infinite."""
    if not math.isfinite(record["loss"]):
        good = f"The last good checkpoint is {folder / CHECKPOINT}." if folder else "No checkpoint had been saved."
        raise MinclipError(
            f"The loss became {record['loss']} by step {record['step']} ({record['images_seen']:,} pictures). {good} "
            "Lower the learning rate, lengthen the warm-up, or look for broken pictures."
        )


def progress_bar(step: int, config: TrainConfig) -> tqdm:
    """Pictures seen, pictures a second, time left. Silent where TQDM_DISABLE is set, in all processes but the
    first, and in a thread, whose owner shows what it does."""
    seen, in_main_thread = step * config.batch_size, threading.current_thread() is threading.main_thread()
    silent = {} if distributed.rank() == 0 and in_main_thread else {"disable": True}
    return tqdm(
        total=config.steps * config.batch_size, initial=seen, desc="training", unit=" pictures", unit_scale=True,
        dynamic_ncols=True, mininterval=1, leave=None, **silent,
    )  # fmt: skip


@contextmanager
def catch_interrupts() -> Iterator[list]:
    """Collect Ctrl-C instead of dying in the middle of a step; a second one is not caught."""
    interrupts: list = []
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield interrupts
        return

    def note(number, frame):
        interrupts.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)

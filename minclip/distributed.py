"""Several processes, one batch: who am I, which pictures are mine, and what to say when one of us is lost.

    torchrun --nproc-per-node N -m -- minclip pretrain --preset gpu --run runs/gpu

(the bare -- keeps torchrun from taking minclip's options for its own; where a machine cannot look up its
own name, torchrun waits in vain without `--local-addr localhost`) starts N processes that hold the same
weights. Each embeds its share of every batch; `loss.distributed_contrastive_loss` contrasts it with
everybody's, and DistributedDataParallel averages the gradients, so that N processes take the step that
one would take on the whole batch. Only BatchNorm tells them apart: each process normalises a ResNet's
pictures by the statistics of its own. In a process that is alone, all of this does nothing. Notebook 12.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from .errors import MinclipError


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0. Process 0 alone writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, if it did. They talk through NCCL between GPUs, of which
    each takes one, and through gloo between CPUs."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        # From here on "cuda" means this one. On CPUs there may be more processes than GPUs, which then does no harm.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    both = torch.cuda.is_available() and dist.is_nccl_available()  # on Windows there is no NCCL
    dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_device(device: torch.device) -> None:
    """Raises MinclipError where several of torchrun's processes would have to share a GPU, which NCCL refuses."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world_size() > 1 else 1
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise MinclipError(
            f"There are {processes} processes on this machine, and GPUs for {torch.cuda.device_count()} of them; "
            "start as many processes as there are GPUs, or add --device cpu."
        )


def share(batch_size: int) -> int:
    """How many of a batch's pictures each process takes. Raises MinclipError if they do not divide."""
    if batch_size % world_size():
        raise MinclipError(
            f"batch_size {batch_size} cannot be shared out evenly among {world_size()} processes; give a multiple."
        )
    return batch_size // world_size()


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean over the processes of a tensor that each of them holds."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value / world_size()


def any_of_us(condition: bool) -> bool:
    """True in every process if the condition holds in any."""
    if world_size() == 1:
        return condition
    flag = torch.tensor(float(condition))
    dist.all_reduce(flag, dist.ReduceOp.MAX)  # between the CPUs: no GPU waits for it
    return bool(flag)


def wait() -> None:
    """Until all processes have come to this place."""
    if world_size() > 1:
        dist.barrier()


def gather(rows: torch.Tensor) -> torch.Tensor:
    """(...) in each process -> (W, ...) in all of them, in order of rank; no gradient."""
    if world_size() == 1:
        return rows.unsqueeze(0)
    gathered = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.stack(gathered)


@contextmanager
def mourning(consequence: str) -> Iterator[None]:
    """Turn the loss of another process into a MinclipError that ends with `consequence`.

    A survivor learns of it in one of two ways: a collective fails because the connection is gone, or
    torchrun, which saw the process die, tells the rest to terminate.
    """
    if world_size() == 1:
        yield
        return

    def lost(number=None, frame=None):
        if in_main_thread:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # we are going; let us say why
        raise MinclipError(f"Process {rank()} of {world_size()} stops: another one was lost or told to. {consequence}")

    in_main_thread = threading.current_thread() is threading.main_thread()  # signals reach it alone
    before = signal.signal(signal.SIGTERM, lost) if in_main_thread else None
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            lost()
        raise
    if in_main_thread:
        signal.signal(signal.SIGTERM, before)

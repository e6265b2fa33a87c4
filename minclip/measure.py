"""Time, memory and arithmetic of a step, on a GPU or a CPU: what benchmarks print and notebook 12 explains."""

import ctypes
import gc
import platform
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> Callable[[], float]:
    """A single thread on a CPU is timed by the seconds it was given a core, so that other work on the machine
    does not count; several threads, or a GPU, by the clock on the wall."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def seconds(step: Callable[[], object], device: torch.device) -> float:
    now = clock(device)
    synchronize(device)
    began = now()
    step()
    synchronize(device)
    return now() - began


def peak_memory(step: Callable[[], object], device: torch.device) -> float | None:
    """GiB that a step takes at its height, above what lay there before; None where it cannot be told.

    On a CPU it is the process's resident memory, whose high-water mark Linux lets a process reset.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**30
    if platform.system() != "Linux":
        step()
        return None
    ctypes.CDLL(None).malloc_trim(0)  # give back what earlier steps freed
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step()
    return (resident("VmHWM") - before) / 2**20


def resident(field: str) -> int:
    """KiB, from Linux's account of this process."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def flops(step: Callable[[], object]) -> int:
    """Floating-point operations of a step's matrix products and convolutions, counted by PyTorch.

    Attention runs as plain products meanwhile: the counter does not know the CPU's fused kernel.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product: the most this machine was seen to do."""
    n = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, b), device) for _ in range(10))


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, and the quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(low), float(high)


def describe_machine(device: torch.device) -> dict:
    """What a reader of a figure must know of the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    facts = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    facts["clock"] = "CPU time" if clock(device) is time.process_time else "wall"
    load = Path("/proc/loadavg")
    if load.exists():
        facts["load at the start"] = float(load.read_text().split()[0])  # of other work, if above the threads
    return facts | {"python": platform.python_version(), "date": datetime.now(UTC).isoformat(timespec="minutes")}


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()

"""How time and memory of a step grow with the number of candidates.

    python -m minclip bench --what growth

The encoders' work grows with the batch, the loss's with its square; `backward_in_chunks` keeps the
encoders' memory constant and the tiled loss keeps its own proportional to the batch. Prints a table
with fitted exponents and the batch at which the loss costs as much as the encoders; `plot` draws it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from peers import autocast
from throughput import batch

from minclip import CLIP, contrastive_loss
from minclip.loss import TiledLogSumExp, tiled_contrastive_loss
from minclip.measure import describe_machine, peak_memory, seconds
from minclip.plots import PALETTE
from minclip.presets import PRESETS
from minclip.train import backward_in_chunks

TILE, CHUNK = 512, 256  # rows of the loss at a time; pairs to embed at a time, where the preset has no chunk
WHOLE_STEPS = [256, 1024, 4096, 32_768]
CANDIDATES = sorted([2**n for n in range(8, 21, 2)] + [32_768])  # 256 to 1,048,576


@dataclass
class Point:
    """One measurement. seconds and gib: of a forward and a backward pass; exact: not extrapolated from a part"""

    what: str
    candidates: int
    seconds: float
    gib: float | None
    exact: bool = True


def bench(device: torch.device, seconds_each: float = 60.0) -> dict:
    """Measure until one measurement is foreseen to last longer than `seconds_each`; a loss that would is
    timed on its first strips and multiplied up, and marked so."""
    facts, points = describe_machine(device), []
    width = PRESETS["gpu"].model.embed_dim if device.type == "cuda" else PRESETS["cpu"].model.embed_dim
    of_loss("warm-up", 256, width, device, tiled_contrastive_loss)  # the first calls wake libraries
    of_step(256, device)
    # The plain loss is not tried where its matrices would take more.
    plain_gib = min(20, memory_gib(device) / 2) if device.type == "cuda" else 5
    for candidates in CANDIDATES:
        if 17 * candidates**2 / 2**30 < plain_gib:  # at its peak four matrices of N x N floats, and some
            points.append(of_loss("plain loss", candidates, width, device, contrastive_loss))
            show(points[-1])
        points.append(of_tiled_loss(candidates, width, device, points, seconds_each))
        show(points[-1])
    for candidates in WHOLE_STEPS:
        last = [p for p in points if p.what == "whole step"]
        if last and last[-1].seconds * candidates / last[-1].candidates > 3 * seconds_each:
            break
        points.append(of_step(candidates, device))
        show(points[-1])
    report = {"machine": facts, "points": [asdict(point) for point in points], **fits(points)}
    for key, value in fits(points).items():
        print(f"  {key}: {value}")
    return report


def memory_gib(device: torch.device) -> float:
    return torch.cuda.get_device_properties(device).total_memory / 2**30


def show(point: Point) -> None:
    memory = "" if point.gib is None else f"{point.gib:8.3f} GiB"
    print(
        f"  {point.what:<12}{point.candidates:>10,}{point.seconds:10.3f} s{memory}{'' if point.exact else '  (from a part)'}",
        flush=True,
    )


def sides(candidates: int, width: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        F.normalize(torch.randn(candidates, width, generator=generator), dim=-1).to(device).requires_grad_()
        for _ in range(2)
    )


def of_loss(what: str, candidates: int, width: int, device, loss_function) -> Point:
    images, texts = sides(candidates, width, device)
    step = lambda: loss_function(images, texts, torch.tensor(50.0, device=device)).backward()  # noqa: E731
    took, memory = time_and_memory(step, device)
    return Point(
        what, candidates, min([took, *(seconds(step, device) for _ in range(3 * (candidates < 10_000)))]), memory
    )


def of_tiled_loss(candidates: int, width: int, device, points: list[Point], limit: float) -> Point:
    before = [p for p in points if p.what == "tiled loss"]
    if not before or before[-1].seconds * (candidates / before[-1].candidates) ** 2 <= limit:
        return of_loss(
            "tiled loss", candidates, width, device, lambda *sides: tiled_contrastive_loss(*sides, tile=TILE)
        )
    # Too long: two strips of it, against all the columns. Every strip costs the same.
    images, texts = sides(candidates, width, device)
    tile = min(TILE, 2**28 // candidates)

    def two_strips():
        rows, columns = TiledLogSumExp.apply(50 * images[: 2 * tile], texts, tile)
        (rows.sum() + columns.sum()).backward()

    took, memory = time_and_memory(two_strips, device)
    return Point("tiled loss", candidates, took * candidates / (2 * tile), memory, exact=False)


def of_step(candidates: int, device) -> Point:
    """Encoders and loss, in chunks, in the precision of the preset: the glyph model, its BatchNorms included."""
    preset = PRESETS["gpu" if device.type == "cuda" else "cpu"]
    config = replace(preset.model, vocab_size=4096)
    torch.manual_seed(0)
    model = CLIP(config).to(device).train()
    images, tokens = batch(config, candidates, device, real=True)
    tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
    encoder, chunk = autocast(model, preset.train.precision), preset.train.chunk or CHUNK
    taken = time_and_memory(lambda: backward_in_chunks(encoder, images, tokens, chunk), device)
    return Point("whole step", candidates, *taken)


def time_and_memory(step: Callable[[], object], device) -> tuple[float, float | None]:
    """Both of one and the same run: the large ones take long."""
    taken = []
    memory = peak_memory(lambda: taken.append(seconds(step, device)), device)
    return taken[0], memory


def fits(points: list[Point]) -> dict:
    """Exponents of time and memory, from the larger half of each series, and where the loss overtakes."""
    found = {}
    for what in dict.fromkeys(point.what for point in points):
        series = [p for p in points if p.what == what]
        series = series[len(series) // 2 - 1 :] if len(series) > 3 else series
        for quantity in ("seconds", "gib"):
            known = [(p.candidates, getattr(p, quantity)) for p in series if getattr(p, quantity)]
            if len(known) > 1:
                exponent = np.polyfit(*np.log(np.array(known, dtype=float)).T, 1)[0]
                found[f"{what}: {quantity} grow with the power"] = round(float(exponent), 2)
    step = [p for p in points if p.what == "whole step"][-1]
    loss = min((p for p in points if p.what == "tiled loss"), key=lambda p: abs(p.candidates - step.candidates))
    per_square = loss.seconds / loss.candidates**2
    per_pair = (step.seconds - per_square * step.candidates**2) / step.candidates  # of the encoders
    found["candidates at which the loss takes as long as the encoders"] = round(per_pair / per_square)
    return found


def plot(report: dict) -> None:
    """Time and memory against candidates, on logarithmic axes; hollow where only a part was measured."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for colour, what in zip(PALETTE, dict.fromkeys(p["what"] for p in report["points"])):
        for ax, quantity in zip(axes, ("seconds", "gib")):
            known = [p for p in report["points"] if p["what"] == what and p[quantity]]
            ax.loglog([p["candidates"] for p in known], [p[quantity] for p in known], color=colour, label=what, base=10)
            for exact in (True, False):
                some = [p for p in known if p["exact"] == exact]
                ax.loglog(
                    [p["candidates"] for p in some], [p[quantity] for p in some], "o", color=colour,
                    markerfacecolor=colour if exact else "white",
                )  # fmt: skip
    crossing = report["candidates at which the loss takes as long as the encoders"]
    axes[0].axvline(crossing, color="grey", linestyle=":")
    axes[0].annotate(
        f"loss = encoders\n{crossing:,.0f}",
        (crossing, axes[0].get_ylim()[0]),
        xytext=(4, 4),
        textcoords="offset points",
    )
    axes[0].set(xlabel="candidates", ylabel="seconds", title="Time of a forward and a backward pass")
    axes[1].set(xlabel="candidates", ylabel="GiB", title="Memory, beyond what lay there before")
    axes[0].legend()

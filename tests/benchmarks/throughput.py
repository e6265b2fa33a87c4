"""Pictures a second: minclip against open_clip and transformers, on the same weights in one process.

    python -m minclip bench --what throughput

First it proves that loss and gradients agree. Then the rivals take turns, so that whatever else the
machine does falls on all of them alike, and medians with quartiles are printed: captions at the
model's full context length, and at the lengths they have, apart. On a GPU, ViT-B/32, ViT-B/16 and RN50
at 224 px and the painted glyphs of the `gpu` preset, eager and compiled, the batch swept until memory
ends. On a CPU, the same shapes at a fraction of the width and depth; eager alone, as compiling takes minutes
there, unless asked for by `--ways`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from peers import Rival, accumulate, autocast, disagreement, relative, rivals

from minclip import CLIP, CLIPConfig
from minclip.measure import describe_machine, flops, matmul_peak, peak_memory, seconds, spread
from minclip.presets import PRESETS
from minclip.train import TrainConfig, backward_in_chunks, make_optimizer

RN50 = CLIPConfig(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12)
FULL = {
    "ViT-B/32": CLIPConfig(),
    "ViT-B/16": CLIPConfig(vision_patch_size=16),
    "RN50": RN50,
    "glyphs": PRESETS["gpu"].model,
}
# A half of the width and of the depth: an eighth of the arithmetic in the same proportions.
NARROW = {
    "embed_dim": 256,
    "transformer_width": 256,
    "transformer_heads": 4,
    "transformer_layers": 6,
    "vocab_size": 16384,
}
SMALL = {
    "ViT-B/32, half as wide and deep": replace(FULL["ViT-B/32"], vision_width=384, vision_layers=6, **NARROW),
    "ViT-B/16, half as wide and deep": replace(FULL["ViT-B/16"], vision_width=384, vision_layers=6, **NARROW),
    "RN50, half as wide and deep": replace(RN50, vision_width=32, vision_layers=(2, 2, 3, 2), **NARROW),
    "glyphs": PRESETS["cpu"].model,
    "glyphs, as a ViT": PRESETS["cpu-vit"].model,
}
CPU_BATCH = {"ViT-B/32": 16, "ViT-B/16": 6, "RN50": 6, "glyphs": 128}  # about a second a step


@dataclass
class Result:
    """One rival at one caption length: medians over the rounds, quartiles beside them."""

    rival: str
    batch: int
    pictures_per_second: float
    quartiles: tuple[float, float]
    memory_gib: float | None
    utilisation: float  # model FLOPs, no padding counted, over the matrix-product peak
    minclip_is_faster_by: tuple[float, float, float] | None = None  # ratio of paired rounds: median, quartiles


def bench(device: torch.device, rounds: int = 7, models: Sequence[str] = (), ways: Sequence[str] = ("eager",)) -> dict:
    """Everything this page promises, printed as it is measured; returns it, too."""
    gpu = device.type == "cuda"
    dtype = torch.bfloat16 if gpu else torch.float32
    facts = describe_machine(device) | {
        "matrix product, TFLOP/s": matmul_peak(device, dtype) / 1e12,
        "precision": str(dtype),
    }
    print(*(f"{key}: {value}" for key, value in facts.items()), sep="\n")
    if not gpu:
        print("No GPU here: small models and small batches. These are not the figures of full pretraining.")
    report: dict = {"machine": facts, "models": {}}
    for name, config in (FULL if gpu else SMALL).items():
        if models and not any(name.startswith(model) for model in models):
            continue
        try:
            report["models"][name] = bench_model(name, config, device, dtype, facts, rounds, ways)
        except torch.OutOfMemoryError as error:
            print(f"  {name} is left out, as memory ended: {str(error).splitlines()[0]}")
            torch.cuda.empty_cache()
    return report


def bench_model(name: str, config: CLIPConfig, device, dtype, facts: dict, rounds: int, ways: Sequence[str]) -> dict:
    torch.manual_seed(0)
    model = CLIP(config).to(device).train()
    for parameter_name, parameter in model.named_parameters():
        if "bn3" in parameter_name:  # starts at zero, and would prove nothing of the blocks behind it
            torch.nn.init.normal_(parameter, std=0.2)
    found, skipped = rivals(model, compiled=False)
    print(f"\n{name}")
    for rival, reason in skipped.items():
        print(f"  {rival} is left out: {reason}.")
    agree(found, config, device)
    eights = {real: batch(config, 8, device, real) for real in (False, True)}
    work = {real: flops(stepper(found[0], *eight, dtype)) / 8 for real, eight in eights.items()}
    if device.type == "cuda":
        sizes = best_batches(found, config, device, dtype)
    else:
        sizes = {rival.name: CPU_BATCH[name.split(",")[0]] for rival in found}
    report: dict = {}
    for way in ways:
        if way == "compiled":
            torch._dynamo.reset()
            found, _ = rivals(model, compiled=True)
        for real in (False, True):
            kind = f"{way}, captions at {'their real lengths' if real else 'full length'}"
            print(f"  {kind}: {int((eights[real][1] != 0).sum(1).max())} tokens the longest")
            results = race(found, config, device, dtype, sizes, real, work[real], facts, rounds)
            report[kind] = [vars(result) for result in results]
    return report


def agree(found: list[Rival], config: CLIPConfig, device: torch.device) -> None:
    """Print, and insist, that on the same batch the rivals have our loss and our gradients, in float64."""
    images, tokens = batch(config, 8, device)
    for rival in found:
        rival.model.double()
    for rival in found[1:]:
        loss, gradient = disagreement(rival, found[0], images.double(), tokens)
        print(
            f"  {rival.name} and minclip differ by {loss:.0e} of the loss, {gradient:.0e} of the worst gradient (float64)."
        )
        assert loss < 1e-6 and gradient < 1e-6, f"{rival.name} does not compute what minclip computes"
    for rival in found:
        rival.model.float()


def batch(config: CLIPConfig, size: int, device: torch.device, real: bool = False):
    """Random pictures, and captions as long as the context or, if `real`, as people write them.

    Real lengths are those of MS-COCO's captions: 8 to 20 tokens, 13 in the middle, brackets included.
    """
    generator, on_device = torch.Generator().manual_seed(size), torch.Generator(device).manual_seed(size)
    side, length, end = config.image_resolution, config.context_length, config.vocab_size - 1
    images = torch.randn(size, 3, side, side, generator=on_device, device=device)
    tokens = torch.randint(end, (size, length), generator=generator)
    lengths = torch.full((size,), length)
    if real:
        lengths = (13 + 3 * torch.randn(size, generator=generator)).round().long().clamp(8, 20)
    place = torch.arange(length)
    tokens[place == lengths[:, None] - 1] = end
    tokens[place >= lengths[:, None]] = 0
    return images, tokens.to(device)


def stepper(rival: Rival, images, tokens, dtype: torch.dtype):
    """A training step of the rival on this batch, as a function of nothing."""
    optimizer = make_optimizer(rival.model, TrainConfig())
    if rival.trims:
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]  # what minclip's tokenizer would have returned

    def step():
        with torch.autocast(images.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = rival.loss_of(images, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def race(found: list[Rival], config, device, dtype, sizes: dict, real: bool, work: float, facts: dict, rounds: int):
    """Each rival at its batch, in turns; prints and returns a Result for each. work: FLOPs that a pair needs"""
    steps = {r.name: stepper(r, *batch(config, sizes[r.name], device, real), dtype) for r in found}
    memory = {name: peak_memory(step, device) for name, step in steps.items()}  # compiles and warms up, too
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(sizes[name] / seconds(step, device))
    results = []
    for name, rates in times.items():
        median, low, high = spread(rates)
        utilisation = median * work / (facts["matrix product, TFLOP/s"] * 1e12)
        ratio = None if name == "minclip" else spread([a / b for a, b in zip(times["minclip"], rates)])
        results.append(Result(name, sizes[name], median, (low, high), memory[name], utilisation, ratio))
        print(
            f"    {name:<13}{median:9.1f} pictures/s ({low:.1f} to {high:.1f}), batch {sizes[name]}, "
            + (f"{memory[name]:.2f} GiB, " if memory[name] is not None else "")
            + f"{utilisation:.0%} of the matrix-product peak"
            + (f"; minclip is {ratio[0]:.2f}x as fast ({ratio[1]:.2f} to {ratio[2]:.2f})" if ratio else "")
        )
    return results


def best_batches(found: list[Rival], config, device, dtype) -> dict[str, int]:
    """{rival: the batch at which it is fastest}, batches doubled from 16 until its memory ends. Found eagerly, as
    each would have to be compiled anew. Raises torch.OutOfMemoryError where not even 16 fit."""
    best = {}
    for rival in found:
        rates, size = {}, 16
        try:
            while True:
                step = stepper(rival, *batch(config, size, device), dtype)
                step()
                rates[size] = size / min(seconds(step, device) for _ in range(2))
                size *= 2
        except RuntimeError as error:
            out_of_workspace = "unable to find an engine" in str(error)  # how cuDNN says that its memory ended
            if not rates or not (out_of_workspace or isinstance(error, torch.OutOfMemoryError)):
                raise
            torch.cuda.empty_cache()
        fitting = list(rates)[:-1] or list(rates)  # not the last, as the race wants memory for all optimisers
        best[rival.name] = max(fitting, key=rates.get)
        print(f"  {rival.name}: memory ends before batch {size}, {best[rival.name]} is fastest")
    return best


def bench_large_batch(device: torch.device, size: int, chunk: int) -> dict:
    """A step whose batch fits only in parts: gradient caching against open_clip's --accum-freq, in time, in
    memory, and in the gradient of the temperature, which accumulation makes as many times too large as
    there are parts."""
    gpu = device.type == "cuda"
    config, k = (FULL["ViT-B/32"] if gpu else PRESETS["cpu-vit"].model), size // chunk
    precision = "bfloat16" if gpu else "float32"
    torch.manual_seed(0)
    found, skipped = rivals(CLIP(config).to(device).train(), compiled=False)
    images, tokens = batch(config, size, device, real=True)
    trimmed = tokens[:, : int((tokens != 0).sum(dim=1).max())]
    ours, theirs = found[0], next((rival for rival in found if rival.name == "open_clip"), None)
    encoder = autocast(ours.model, precision)
    ways = {"minclip, gradient caching": (ours, lambda: backward_in_chunks(encoder, images, trimmed, chunk))}
    if theirs is None:
        print(f"  open_clip is left out: {skipped['open_clip']}.")
    else:
        ways["open_clip, --accum-freq"] = (theirs, lambda: accumulate(theirs, images, tokens, k, precision))
    print(f"\n{size:,} candidates in {k} parts of {chunk}, {precision}")
    report: dict = {"size": size, "chunk": chunk, "precision": precision}
    for name, (rival, step) in ways.items():
        try:
            memory = peak_memory(step, device)
            rival.model.zero_grad()
            took = seconds(step, device)  # warm by now
        except torch.OutOfMemoryError as error:
            print(f"    {name}: memory ended, {str(error).splitlines()[0]}")
            break
        scale, patches = rival.model.logit_scale.grad.clone(), rival.model.visual.conv1.weight.grad.clone()
        report[name] = {"seconds": took, "pictures_per_second": size / took, "memory_gib": memory}
        told = "" if memory is None else f", {memory:.2f} GiB"
        print(f"    {name:<27}{took:8.2f} s, {size / took:9.1f} pictures/s{told}")
        if name.startswith("minclip"):
            reference = scale, patches
        else:
            report["ratio of the temperature's gradients"] = (scale / reference[0]).item()
            print(
                f"    the temperature's gradient is {scale / reference[0]:.3f} times ours (there are {k} parts); "
                f"the patch embedding's differs by {relative(patches, reference[1]):.0e}"
            )
    return report

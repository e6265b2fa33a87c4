"""Full pretraining, followed from the first step to the last.

The paper pretrains by the task of finding each picture's caption among 32,768 (section 2.5). Here a run is
stopped at a few moments, further and further apart, and put to that very task: 32,768 freshly painted
pictures with as many captions, no two alike. Some zero-shot tasks show what it is good for. Beside the run,
one step of 32,768 pairs is timed, its memory taken, and its arithmetic held against what the machine can do.

On a GPU the recipe is the preset `gpu`, on a small one `laptop-gpu`. On a CPU the captions of `gpu`, at 32 px
and 1,024 pairs a step, go as far as an hour carries them. Notebook 12.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from ..checkpoint import CHECKPOINT
from ..clip import CLIP
from ..data.glyphs import load_atlas
from ..data.images import preprocess
from ..data.painting import GlyphPairs
from ..data.tasks import Task, glyph_tasks
from ..demo import captions_to_read
from ..errors import MinclipError
from ..evaluation import evaluate_tasks
from ..loss import contrastive_loss
from ..measure import flops, matmul_peak, peak_memory, seconds
from ..plots import BLUE, GREEN, GREY, PALETTE, VERMILION
from ..presets import Preset, find_preset, new_model
from ..pretrained import load, save
from ..tokenizer import CLIPTokenizer
from ..train import TrainConfig, fit, make_optimizer, prepare, train_step
from ..zeroshot import encode_images, encode_texts, retrieval
from .common import Setting, claim, claims_as_text, percent, run_folder, spread, table

TASKS = ("unseen-names", "unseen-typeface-digits", "handwritten-digits", "ink-colour")
CANDIDATES = {"quick": 4096, "recorded": 32_768}
LARGE_GPU = 20 * 2**30  # bytes; the preset `gpu` wants some 16 GiB for a chunk, by what autograd keeps of one
TEST_SEED = 1_000_003  # of the stream that the candidates are painted from; no training run has it


def recipe(setting: Setting) -> Preset:
    """A GPU's preset on a GPU; elsewhere the paint of `gpu` on the demo's model. Quick is the same, shorter, and not
    compiled, which a minute does not earn back."""
    quick, gpu = setting.scale == "quick", find_preset("gpu")
    if setting.device.type == "cuda":
        if torch.cuda.get_device_properties(setting.device).total_memory < LARGE_GPU:
            gpu = find_preset("laptop-gpu")
        steps, log_every = (40, 1) if quick else (gpu.train.steps, 10)  # the GPU waits where a loss is logged
        train = replace(gpu.train, images_seen=steps * gpu.train.batch_size, log_every=log_every)
        return replace(gpu, train=replace(train, compile=train.compile and not quick))
    cpu, batch, steps = find_preset("cpu"), 256 if quick else 1024, 60 if quick else 4096
    train = replace(cpu.train, images_seen=steps * batch, batch_size=batch, lr=4e-3, log_every=1, checkpoint_every=20)
    return replace(cpu, train=train, paint=gpu.paint)


def moments(config: TrainConfig, count: int = 8) -> list[int]:
    """Steps at which to look: logged ones, about evenly spaced on a logarithmic scale, the last one among them."""
    spaced = np.geomspace(min(10, config.steps), config.steps, count).round(6)
    return sorted({min(config.steps, config.log_every * math.ceil(step / config.log_every)) for step in spaced})


def train(preset: Preset, run: Path, device: torch.device) -> list[dict]:
    """Train on the glyphs, leaving the model as it was at each moment in `run`/step-...; returns `fit`'s records.

    Looking is for later, so that it takes nothing from the training's time. Goes on where it was killed.
    """
    pairs = GlyphPairs(load_atlas(preset.model.image_resolution).training(), preset.paint, device)
    model, tokenizer = new_model(preset.model, captions_to_read(pairs, preset.train.seed), preset.train.seed)
    stops = moments(preset.train)

    def keep(record: dict) -> None:
        if record["step"] in stops:
            save(model, tokenizer, snapshot(run, record["step"]))

    return fit(model.to(device), tokenizer, pairs, preset.train, run, (run / CHECKPOINT).exists(), on_log=keep)


def snapshot(run: Path, step: int) -> Path:
    return run / f"step-{step:06d}"


def distinct_pairs(pairs: GlyphPairs, count: int) -> tuple[torch.Tensor, list[str], int]:
    """Pictures (count, 3, S, S) with captions of which no two are alike, and how many pictures were passed over
    because their caption was there already.

    Raises MinclipError where the stream repeats itself too much.
    """
    captions = pairs.captions(2 * count, TEST_SEED)
    places = np.array(list({caption: place for place, caption in reversed(list(enumerate(captions)))}.values()))
    places = np.sort(places)[:count]  # where each caption first appears
    if len(places) < count:
        raise MinclipError(
            f"Among {len(captions):,} painted captions only {len(places):,} differ; asked for {count:,}."
        )
    images = [
        pairs.batch(1024, TEST_SEED, start)[0][places[(places >= start) & (places < start + 1024)] - start]
        for start in range(0, int(places[-1]) + 1, 1024)
    ]
    return torch.cat(images), [captions[place] for place in places], int(places[-1]) + 1 - count


def look(model: CLIP, tokenizer: CLIPTokenizer, images: torch.Tensor, captions: list[str], tasks: dict[str, Task]):
    """-> {"candidates": {n: R@1 among the first n pairs, mean of both directions}, "zero_shot": {task: accuracy}}."""
    image_features = encode_images(model, preprocess(images, model.config))
    text_features = encode_texts(model, tokenizer, captions)
    counts = [2**n for n in range(5, len(captions).bit_length() - 1)] + [len(captions)]
    among = {}
    for n in counts:
        recalls = retrieval(image_features[:n], text_features[:n], ks=(1,))
        among[n] = sum(recalls.values()) / 2
    accuracy = {name: result.accuracy for name, result in evaluate_tasks(model, tokenizer, tasks).items()}
    return {"candidates": among, "zero_shot": accuracy}


def duplicates_floor(captions: Sequence[str]) -> float:
    """The least contrastive loss, in nats, that a batch with these captions allows: of m pictures with one
    caption between them, none can be told from the others, so each costs ln m."""
    count = Counter(captions)
    return float(np.mean([math.log(count[caption]) for caption in captions]))


def whole_step(preset: Preset, device: torch.device, candidates: int) -> dict[str, float | None]:
    """One step of the optimiser with so many candidates: seconds, GiB beyond model and batch, and the share of
    the machine's arithmetic that went into what a step in one piece must compute (model FLOPs utilisation)."""
    pairs = GlyphPairs(load_atlas(preset.model.image_resolution).training(), preset.paint, device)
    images, captions = pairs.batch(candidates, TEST_SEED)
    model, tokenizer = new_model(preset.model, captions_to_read(pairs, preset.train.seed), preset.train.seed)
    model, tokens = model.to(device).train(), tokenizer(captions).to(device)
    config = replace(preset.train, chunk=preset.train.chunk or 256)
    forward, optimizer = prepare(model, config), make_optimizer(model, config)
    took = []

    def timed_step() -> None:
        took.append(seconds(lambda: train_step(forward, model, optimizer, images, tokens, config), device))

    if config.compile or device.type == "cuda":
        timed_step()  # compiles, and wakes the GPU's libraries
    memory = peak_memory(timed_step, device)
    some = min(256, candidates)
    eager = prepare(model, replace(config, compile=False))
    encoders = flops(lambda: sum(f.sum() for f in eager(images[:some], tokens[:some])[:2]).backward()) / some
    sides = torch.zeros(2, some, preset.model.embed_dim, device=device, requires_grad=True)
    loss = flops(lambda: contrastive_loss(*sides, model.logit_scale.exp()).backward()) / some**2
    needed = encoders * candidates + loss * candidates**2
    peak = matmul_peak(device, torch.bfloat16 if config.precision == "bfloat16" else torch.float32)
    return {
        "candidates": candidates, "chunk": config.chunk, "seconds": took[-1], "gib": memory, "flops": needed,
        "flops_of_loss": loss * candidates**2, "matmul_flops_per_second": peak, "utilisation": needed / took[-1] / peak,
    }  # fmt: skip


def run(setting: Setting) -> dict:
    """-> the recipe, one whole step, for each seed the records of training and what was seen at each moment, claims."""
    preset, candidates = recipe(setting), CANDIDATES[setting.scale]
    atlas = load_atlas(preset.model.image_resolution)
    pairs = GlyphPairs(atlas.training(), preset.paint)
    images, captions, passed_over = distinct_pairs(pairs, candidates)
    tasks = {name: task for name, task in glyph_tasks(atlas).items() if name in TASKS}
    step = whole_step(preset, setting.device, candidates)
    results = []
    for seed in tqdm(range(setting.seeds), desc="runs", unit="run", leave=False):
        of_seed = replace(preset, train=replace(preset.train, seed=seed))
        folder = run_folder(of_seed, setting, "pretraining")
        records = train(of_seed, folder, setting.device)
        seen = []
        for stop in tqdm(moments(preset.train), desc="looking", unit="moment", leave=False):
            model, tokenizer = load(str(snapshot(folder, stop)), setting.device)
            at = {"step": stop, "images_seen": stop * preset.train.batch_size}
            seen.append(at | look(model, tokenizer, images, captions, tasks))
        results.append({"seed": seed, "records": rounded(thinned(records, preset.train)), "moments": rounded(seen)})
    return {
        "recipe": asdict(preset), "parameters": sum(p.numel() for p in model.parameters()),
        "glyphs": len(pairs.atlas), "names": len(pairs), "passed_over": passed_over,
        "duplicates": duplicates(pairs, preset.train.batch_size, candidates),
        "chance": {name: task.chance for name, task in tasks.items()},
        "step": rounded(step), "runs": results, "claims": claims(preset, step, results, candidates),
    }  # fmt: skip


def duplicates(pairs: GlyphPairs, *batch_sizes: int) -> dict[int, dict[str, float]]:
    """For each size: how many captions of a batch are another's double, and what they cost at the least, in nats."""
    found = {}
    for size in batch_sizes:
        captions = pairs.captions(size)
        found[size] = {"doubles": size - len(set(captions)), "floor": round(duplicates_floor(captions), 4)}
    return found


def thinned(records: list[dict], config: TrainConfig) -> list[dict]:
    """Of a long run's records all of the first hundred steps, where most happens; then every tenth, and those of
    the moments."""
    kept = moments(config)
    return [r for r in records if r["step"] <= 100 or r["step"] % 10 == 0 or r["step"] in kept]


def rounded(values):
    """Numbers to six significant digits, however deep they lie: enough for a picture."""
    if isinstance(values, dict):
        return {key: rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values


def claims(preset: Preset, step: dict, results: list[dict], candidates: int) -> list[dict[str, str]]:
    last = [result["moments"][-1] for result in results]
    found, names = ([at["candidates"][candidates] for at in last], [at["zero_shot"]["unseen-names"] for at in last])
    took = [result["records"][-1]["seconds"] / 60 for result in results]
    minutes = spread(took, ".0f" if min(took) >= 10 else ".1f")
    memory = "" if step["gib"] is None else f", {step['gib']:.1f} GiB"
    return [
        claim(f"pretraining finds a caption among {candidates:,}", "the training task, with that minibatch",
              f"R@1 {percent(found)} of freshly painted pictures, chance {1 / candidates:.3%}; after "
              f"{preset.train.images_seen / 1e6:.2g} M pictures in {minutes} min, {preset.train.batch_size:,} a step"),
        claim("and names what it never saw", "zero-shot on 30 data sets",
              f"{percent(names)} of the characters in unseen-names"),
        claim(f"{candidates:,} candidates fit into one step", "on up to 592 V100",
              f"{step['seconds']:.0f} s{memory} in chunks of {step['chunk']}, {step['utilisation']:.0%} of the peak used"),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """A line for each moment of the first run, then the claims."""
    moments_seen = results["runs"][0]["moments"]
    names = list(moments_seen[0]["zero_shot"])
    header = ("pictures seen", f"R@1 of {int(list(moments_seen[0]['candidates'])[-1]):,}", *names)
    rows = [
        (f"{at['images_seen']:,}", f"{list(at['candidates'].values())[-1]:.1%}",
         *(f"{at['zero_shot'][name]:.1%}" for name in names))
        for at in moments_seen
    ]  # fmt: skip
    return table(header, rows) + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Loss and scale, the training task, and zero-shot accuracy along the run, against pictures seen."""
    _, axes = plt.subplots(2, 2, figsize=(10, 7))
    (loss, task), (scale, zero_shot) = axes
    batch = results["recipe"]["train"]["batch_size"]
    for result in results["runs"]:
        seen = [record["images_seen"] for record in result["records"]]
        loss.semilogx(seen, [record["loss"] for record in result["records"]], color=BLUE, linewidth=1.2)
        scale.semilogx(seen, [record["logit_scale"] for record in result["records"]], color=VERMILION)
        seen = [at["images_seen"] for at in result["moments"]]
        counts = list(result["moments"][0]["candidates"])
        task.semilogx(seen, [100 * at["candidates"][counts[-1]] for at in result["moments"]], color=GREEN, marker="o")
        for colour, name in zip(PALETTE, result["moments"][0]["zero_shot"]):
            line = [100 * at["zero_shot"][name] for at in result["moments"]]
            zero_shot.semilogx(seen, line, color=colour, marker="o", label=name if result["seed"] == 0 else None)
    loss.axhline(math.log(batch), color=GREY, linestyle="--", linewidth=1.2)
    about = f"ln {batch:,}: guessing"
    loss.annotate(
        about, (seen[-1], math.log(batch)), (0, -5), textcoords="offset points", color=GREY, ha="right", va="top"
    )
    loss.set(ylabel="contrastive loss, nats", ylim=(0, None), title="The loss")
    scale.set(ylabel="logit scale (1 / temperature)", ylim=(0, None), title="The temperature")
    task.set(ylabel="R@1, %", ylim=(0, None), title=f"The training task: one caption out of {int(counts[-1]):,}")
    zero_shot.set(ylabel="zero-shot accuracy, %", ylim=(0, 100), title="What it is good for")
    zero_shot.legend(loc="upper left")
    for ax in axes.flat:
        ax.set(xlabel="pictures seen")

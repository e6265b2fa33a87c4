"""Batch size and temperature (paper, sections 2.3 and 2.5): how many candidates, how sharp, and which twins.

CLIP trained on minibatches of 32,768 pairs, with a learned temperature, so that it need not be tuned as
a hyper-parameter. Neither was put to the test in the paper. Here a small CLIP sees equally many pictures

- in batches of 64 to 32,768, the large ones by gradient caching: more candidates, and fewer steps;
- in batches of one size, each pair contrasted with a part of it: more candidates, and equally many steps;
- with the logit scale learned, and fixed at three values;
- with every name several times in each batch, its captions identical, or made distinct by what else they say.

A batch of N pairs begins at a loss of ln N, and r identical captions keep it above ln r whatever is learned.
The encoder is a ViT, so that gradient caching is exact. Notebooks 04 and 12.
"""

import json
import math
import statistics
from dataclasses import asdict, dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from ..checkpoint import write_atomically
from ..clip import CLIP, CLIPConfig
from ..data.glyphs import load_atlas
from ..data.painting import GlyphPairs, Paint
from ..data.tasks import NAMED, glyph_tasks
from ..evaluation import evaluate_retrieval, evaluate_task
from ..loss import contrastive_loss
from ..plots import BLUE, GREY, ORANGE, VERMILION
from ..presets import new_model
from ..train import TrainConfig, learning_rate, make_optimizer, prepare, set_learning_rate, train_step
from .common import Setting, claim, claims_as_text, percent, table

MODEL = CLIPConfig(
    embed_dim=64, image_resolution=32, vision_layers=2, vision_width=64, vision_patch_size=8, vision_heads=2,
    context_length=48, vocab_size=2048, transformer_width=64, transformer_heads=2, transformer_layers=1,
)  # fmt: skip
DESCRIBED = Paint(coloured=0.5, colours_named=0.95, described=0.95)  # few captions in a large batch are alike
BARE = Paint(coloured=0.5, colours_named=0, described=0)  # the same pictures, each called by its name alone
CHUNK = 1024  # pairs embedded at a time
START = 1 / 0.07  # the logit scale that CLIP begins with


@dataclass(frozen=True)
class Case:
    """How a model is trained.

    batch: pairs a step; candidates: captions each picture is contrasted with; copies: of each name in a batch
    scale: the logit scale, fixed; None: learned
    described: captions say more than the name
    """

    batch: int = 256
    candidates: int = 256
    copies: int = 1
    scale: float | None = None
    described: bool = True

    @property
    def lr(self) -> float:
        """Grows with the square root of the batch, as suits Adam, from a rate tuned at 64 pairs; capped."""
        return min(1e-3 * math.sqrt(self.batch / 64), 8e-3)


@dataclass(frozen=True)
class Plan:
    """What is trained at a scale, on so many pictures each time; `scales` are fixed ones."""

    pictures: int
    batches: tuple[int, ...]
    candidates: tuple[int, ...]
    scales: tuple[float, ...]


PLANS = {
    "quick": Plan(32_768, (64, 1024), (4, 256), (100.0,)),
    "recorded": Plan(262_144, (64, 256, 1024, 4096, 32_768), (4, 16, 64, 256), (1.0, START, 100.0)),
}
COPIES = (1, 16)


class RepeatedPairs(GlyphPairs):
    """Each name `copies` times in a row, each time in a face and paint of its own."""

    copies = 1

    def deal(self, seed: int, index: np.ndarray, chance: np.ndarray) -> np.ndarray:
        return super().deal(seed, index // self.copies, chance)


def loss_within_groups(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor, candidates: int
) -> torch.Tensor:
    """The contrastive loss of (N, E) features, each picture among the captions of its own group alone; mean over groups."""
    groups = zip(image_features.split(candidates), text_features.split(candidates))
    return torch.stack([contrastive_loss(images, texts, logit_scale) for images, texts in groups]).mean()


def train(case: Case, pictures: int, seed: int, device: torch.device) -> tuple[CLIP, object, list[float]]:
    """A model trained as the case says, its tokenizer, and the loss of every step."""
    config = TrainConfig(images_seen=pictures, batch_size=case.batch, lr=case.lr, seed=seed, chunk=CHUNK)
    pairs = RepeatedPairs(load_atlas().training(), DESCRIBED if case.described else BARE, device)
    pairs.copies = case.copies
    model, tokenizer = new_model(MODEL, [*pairs.names, *pairs.captions(5_000, seed)], seed)
    model.to(device).train()
    if case.scale is not None:
        model.logit_scale.requires_grad_(False).fill_(math.log(case.scale))
    optimizer, forward, losses = make_optimizer(model, config), prepare(model, config), []
    for step in tqdm(range(config.steps), desc=f"batch {case.batch}", unit="step", leave=False):
        images, captions = pairs.batch(case.batch, seed, step * case.batch)
        tokens = tokenizer(captions).to(device)
        set_learning_rate(optimizer, learning_rate(step, config))
        if case.candidates == case.batch:
            losses.append(train_step(forward, model, optimizer, images, tokens, config).item())
            continue
        optimizer.zero_grad()
        loss = loss_within_groups(*forward(images, tokens), case.candidates)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
        model.clamp_logit_scale()
        losses.append(loss.item())
    return model, tokenizer, losses


def measure(case: Case, pictures: int, seed: int, setting: Setting) -> dict:
    """Train, and test: zero-shot accuracy, retrieval, how the loss began and ended, the scale, twins in a batch.

    Kept in the runs folder, and found there again.
    """
    place = setting.runs / f"batch-{pictures}-{'-'.join(map(str, asdict(case).values()))}-{seed}.json"
    if place.exists():
        return json.loads(place.read_text())
    model, tokenizer, losses = train(case, pictures, seed, setting.device)
    atlas = load_atlas()
    tasks = [task for name, task in glyph_tasks(atlas).items() if name in NAMED]
    recalls = evaluate_retrieval(model, tokenizer, atlas)
    last = losses[-max(1, len(losses) // 10) :]
    found = {
        **asdict(case), "lr": case.lr, "seed": seed, "steps": len(losses),
        "zero_shot": statistics.fmean(evaluate_task(model, tokenizer, task).accuracy for task in tasks),
        "retrieval": (recalls["image_to_text_R@1"] + recalls["text_to_image_R@1"]) / 2,
        "first_loss": losses[0], "last_loss": statistics.fmean(last), "logit_scale": model.logit_scale.exp().item(),
    }  # fmt: skip
    setting.runs.mkdir(parents=True, exist_ok=True)
    write_atomically(place, lambda file: file.write(json.dumps(found).encode()))
    return found


def run(setting: Setting) -> dict:
    """-> the runs (one dictionary each) by what is varied, and the claims."""
    plan = PLANS[setting.scale]
    cases = {
        "batch": [Case(batch, batch) for batch in plan.batches],
        "candidates": [Case(candidates=candidates) for candidates in plan.candidates],
        "scale": [Case(), *(Case(scale=scale) for scale in plan.scales)],
        "copies": [Case(copies=copies, described=said) for said in (False, True) for copies in COPIES],
    }
    found = {varied: [] for varied in cases}
    for seed in range(setting.seeds):
        for varied, some in cases.items():
            found[varied] += [measure(case, plan.pictures, seed, setting) for case in some]
    return {"pictures": plan.pictures, "chance": chance(), **found, "claims": claims(found, plan.pictures)}


def chance() -> float:
    """Mean accuracy over the tasks of naming classes at random."""
    return statistics.fmean(task.chance for name, task in glyph_tasks(load_atlas()).items() if name in NAMED)


def scores(runs: list[dict], score: str = "zero_shot", **about) -> list[float]:
    """A figure of the runs that are as told, one a seed."""
    return [run[score] for run in runs if all(run[key] == value for key, value in about.items())]


def values(runs: list[dict], key: str) -> list:
    """What was varied, in the order it was run."""
    return list(dict.fromkeys(run[key] for run in runs))


def claims(found: dict, pictures: int) -> list[dict]:
    by_batch = [
        f"{batch:,} a step ({pictures // batch:,} steps) {percent(scores(found['batch'], batch=batch))}"
        for batch in values(found["batch"], "batch")
    ]
    counts = values(found["candidates"], "candidates")
    by_candidates = [f"{n}: {percent(scores(found['candidates'], candidates=n))}" for n in counts]
    learned = scores(found["scale"], "logit_scale", scale=None)
    fixed = [
        f"{scale:.0f}: {percent(scores(found['scale'], scale=scale))}"
        for scale in values(found["scale"], "scale")
        if scale is not None
    ]
    names, many = found["copies"], COPIES[-1]
    twins = [scores(names, described=said, copies=copies) for said in (False, True) for copies in (1, many)]
    floor = statistics.fmean(scores(names, "last_loss", described=False, copies=many))
    return [
        claim("a very large batch", "32,768 pairs a step; no comparison",
              f"zero-shot after {pictures:,} pictures: {', '.join(by_batch)}"),
        claim("more candidates teach more", "no comparison",
              f"256 pairs a step, each among {', '.join(map(str, counts[:-1]))} or {counts[-1]} candidates: {', '.join(by_candidates)}"),
        claim("the temperature is learned", "learned, so as not to be tuned",
              f"learned (the scale ends at {statistics.fmean(learned):.0f}) {percent(scores(found['scale'], scale=None))}; "
              f"fixed at {', at '.join(fixed)}"),
        claim("few different names in a batch hurt, their captions identical or not", "not measured",
              f"each name once or {many} times in 256: {percent(twins[0])}, {percent(twins[1])}, the loss then ends at "
              f"{floor:.2f} (ln {many} = {math.log(many):.2f}); captions that say more: {percent(twins[2])}, {percent(twins[3])}"),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """A line for each kind of run, then the claims."""
    header = ("", "steps", "zero-shot", "retrieval", "first loss", "last loss", "ln N", "scale")
    rows = []
    for varied, keys in (("batch", ["batch"]), ("candidates", ["candidates"]), ("scale", ["scale"]), ("copies", ["described", "copies"])):  # fmt: skip
        for case in dict.fromkeys(tuple(run[key] for key in keys) for run in results[varied]):
            about = dict(zip(keys, case))
            first, last, steps, scale, candidates = (
                statistics.fmean(scores(results[varied], score, **about))
                for score in ("first_loss", "last_loss", "steps", "logit_scale", "candidates")
            )
            rows.append((", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in about.items()), f"{steps:,.0f}",
                         percent(scores(results[varied], **about)), percent(scores(results[varied], "retrieval", **about)),
                         f"{first:.2f}", f"{last:.2f}", f"{math.log(candidates):.2f}", f"{scale:.1f}"))  # fmt: skip
    about = f"Zero-shot is the mean over tasks, by chance {results['chance']:.1%}; retrieval is R@1, both ways."
    return f"{table(header, rows)}\n\n{about}\n\n{claims_as_text(results['claims'])}"


def plot(results: dict) -> None:
    """Zero-shot accuracy against batch, candidates, logit scale and copies, each with its spread over seeds."""
    _, axes = plt.subplots(1, 4, figsize=(13, 3.8), sharey=True)

    def line(ax, varied, key, colour, label, marker="o", **about):
        runs = [run for run in results[varied] if all(run[k] == v for k, v in about.items())]
        places = [place for place in values(runs, key) if place is not None]
        found = [[100 * share for share in scores(runs, **{key: place})] for place in places]
        error = [np.std(some, ddof=1) if len(some) > 1 else 0 for some in found]
        mean = [np.mean(some) for some in found]
        ax.errorbar(places, mean, error, color=colour, marker=marker, capsize=3, label=label)

    line(axes[0], "batch", "batch", BLUE, None)
    line(axes[1], "candidates", "candidates", BLUE, None)
    line(axes[2], "scale", "scale", ORANGE, "fixed", "s")
    learned = 100 * np.mean(scores(results["scale"], scale=None))
    end = np.mean(scores(results["scale"], "logit_scale", scale=None))
    axes[2].plot([START, end], [learned, learned], color=BLUE, marker="o", label="learned: from, to")
    line(axes[3], "copies", "copies", VERMILION, "the bare name", "s", described=False)
    line(axes[3], "copies", "copies", BLUE, "captions say more", described=True)
    titles = ("pairs a step", "candidates, 256 pairs a step", "logit scale", "copies of a name in 256")
    for ax, title in zip(axes, titles):
        ax.set_xscale("log", base=10 if title == "logit scale" else 2)
        ax.axhline(100 * results["chance"], color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xlabel=title, ylim=(0, None))
    axes[0].set_xticks(
        values(results["batch"], "batch"), [f"{b:,}" for b in values(results["batch"], "batch")], rotation=40
    )
    counts = values(results["candidates"], "candidates")
    axes[1].set_xticks(counts, counts)
    axes[2].set_xticks((1, 14.3, 100), ("1", "14", "100"))
    axes[3].set_xticks(COPIES, COPIES)
    axes[0].set_ylabel("zero-shot accuracy, %")
    axes[0].figure.set_layout_engine("constrained", rect=(0.02, 0, 0.98, 1))  # room for that label
    axes[0].annotate("chance", (64, 100 * results["chance"]), (0, 3), textcoords="offset points", color=GREY)
    for ax in axes[2:]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28))
    axes[0].set_title(f"After {results['pictures']:,} pictures, mean over tasks")

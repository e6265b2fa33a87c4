"""Broken CLIPs: ten classic mistakes, each trained beside the right CLIP, and the curves by which to know them.

`mistakes.py` holds them; none stops a run with an error. The landmark is ln N, the loss of guessing among N
pairs: a run that stays there has learned nothing, and the reason is in what it is fed. Some of the mistakes
leave no mark on any curve, which is as well to know. The right step is that of the paper's sections 2.3 and
2.5 and Figure 3. Notebook 05.
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..clip import CLIP, MAX_LOGIT_SCALE, CLIPConfig
from ..data.glyphs import Atlas, load_atlas
from ..data.images import normalize
from ..data.painting import GlyphPairs, Paint
from ..data.tasks import validation_task
from ..demo import write_json
from ..evaluation import evaluate_task
from ..plots import GREY, VERMILION
from ..presets import new_model
from ..pretrained import load
from ..tokenizer import CLIPTokenizer
from ..train import TrainConfig, learning_rate, make_optimizer, set_learning_rate
from ..zeroshot import evaluating, retrieval
from .common import Setting, claim, claims_as_text, percent, spread, table
from .mistakes import MISTAKES, RIGHT, Mistake

BATCH, HELD_OUT = 64, 256  # pairs contrasted in a step; pairs of names never trained on, to find each other
MODEL = CLIPConfig(  # small enough to be trained 33 times in some minutes
    embed_dim=64, image_resolution=32, vision_layers=(1, 1, 1, 1), vision_width=8, vision_patch_size=None, vision_heads=4,
    context_length=48, vocab_size=1024, transformer_width=64, transformer_heads=2, transformer_layers=1, quick_gelu=True,
)  # fmt: skip
PLAIN = Paint(coloured=0, described=0)  # black on white, and the captions are the bare names


def encode(
    model: CLIP, images: torch.Tensor, tokens: torch.Tensor, pool: Callable
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, E) of pictures and (N, E) of captions, of any length, the captions read at the token that `pool` picks."""
    hidden = model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]]
    hidden = model.transformer.at(hidden, pool(tokens))
    return model.encode_image(normalize(images), normalize=False), model.ln_final(hidden) @ model.text_projection


def train(
    mistake: Mistake,
    atlas: Atlas,
    seed: int,
    images_seen: int,
    records: int = 25,
    device: torch.device = torch.device("cpu"),
) -> list[dict]:
    """A short run with the mistake; some `records` of it on the way, the first after one step.

    Each holds `images_seen`, `loss` and `logit_scale` as the run reports them, and of held-out pairs `accuracy` (pictures
    that find their caption), `accuracy_of_captions`, and `spread`, how far captions' features lie apart (0: all alike).
    """
    config = TrainConfig(images_seen=images_seen, batch_size=BATCH, lr=3e-3, seed=seed)
    pairs = GlyphPairs(atlas.training(), PLAIN, device)
    held_out = GlyphPairs(atlas.unseen_names("validation"), PLAIN, device).batch(HELD_OUT)
    model, tokenizer = new_model(MODEL, list(pairs.names), seed)
    model = model.to(device).train()
    used = model if mistake.quick_gelu else CLIP(replace(model.config, quick_gelu=False)).to(device)
    optimizer = make_optimizer(model, config)
    kept, every = [], -(-config.steps // (records - 1))
    for step, (images, captions) in zip(range(config.steps), pairs.batches(BATCH, seed)):
        set_learning_rate(optimizer, learning_rate(step, config))
        tokens = tokenizer(mistake.captions(captions)).to(device)
        optimizer.zero_grad()
        loss = mistake.loss(*encode(model, images, tokens, mistake.pool), model.logit_scale.exp())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
        if mistake.clamp:
            model.clamp_logit_scale()
        if step % every == 0 or step == config.steps - 1:
            used.load_state_dict(model.state_dict())  # itself, but for the mistake of another activation
            figures = figures_of_held_out(used, tokenizer, mistake, *held_out)
            if used is not model:
                with torch.no_grad():
                    loss = mistake.loss(*encode(used, images, tokens, mistake.pool), model.logit_scale.exp())
            figures |= {"loss": loss.item(), "logit_scale": model.logit_scale.exp().item()}
            kept.append({"images_seen": (step + 1) * BATCH, **{key: round(value, 5) for key, value in figures.items()}})
    return kept


@torch.no_grad()
def figures_of_held_out(
    model: CLIP, tokenizer: CLIPTokenizer, mistake: Mistake, images: torch.Tensor, captions: list[str]
) -> dict:
    """How well held-out pairs find each other, the model used as the mistake uses it."""
    with evaluating(model):
        features = encode(model, images, tokenizer(captions).to(images.device), mistake.pool)
    images, texts = (F.normalize(side, dim=-1) for side in features)
    recall = retrieval(images, texts, ks=(1,))
    return {
        "accuracy": recall["image_to_text_R@1"], "accuracy_of_captions": recall["text_to_image_R@1"],
        "spread": texts.std(dim=0).norm().item(),
    }  # fmt: skip


def suspects(records: list[dict], batch_size: int = BATCH) -> set[str]:
    """Which of MISTAKES a run's loss and logit scale alone leave possible. No threshold here is fitted to runs.

    A loss far above ln N at the first step needs logits far larger than cosines make; a scale that never moves has no
    gradient; one above 100 has no limit; a loss at ln N knows nothing. Whatever else is wrong does not show.
    """
    guessing = math.log(batch_size)
    if records[0]["loss"] > 3 * guessing:
        return {"no normalisation"}
    if math.isclose(records[0]["logit_scale"], records[-1]["logit_scale"], rel_tol=1e-3):  # rounding alone moves it
        return {"scale before normalising"}
    if max(record["logit_scale"] for record in records) > MAX_LOGIT_SCALE:
        return {"no clamp"}
    if records[-1]["loss"] > 0.99 * guessing:
        return {"captions misaligned", "captions all alike", "first token read"}
    return {"one-sided loss", "soft targets", "gathered without gradient", "no clamp", "GELU for QuickGELU"}


def run(setting: Setting) -> dict:
    """-> for the right run and each mistake one list of records a seed, what to look at, and the claims."""
    images_seen = 6_400 if setting.scale == "quick" else 20_032
    atlas = load_atlas(MODEL.image_resolution)
    steps = {"right": RIGHT, **MISTAKES}
    every = [(name, seed) for name in steps for seed in range(setting.seeds)]
    runs: dict[str, list[list[dict]]] = {name: [] for name in steps}
    for name, seed in tqdm(every, desc="runs", unit="run", leave=False):
        kept = setting.runs / "broken-clips" / f"{name.replace(' ', '-')}-{images_seen}-{seed}.json"
        if not kept.exists():
            write_json(kept, {"records": train(steps[name], atlas, seed, images_seen, device=setting.device)})
        runs[name].append(json.loads(kept.read_text())["records"])
    others = with_another_activation(atlas, setting.device)
    return {
        "images_seen": images_seen, "batch_size": BATCH, "held_out": HELD_OUT, "runs": runs,
        "look_at": {name: mistake.look_at for name, mistake in MISTAKES.items()},
        "another_activation": others, "claims": claims_of(runs, others),
    }  # fmt: skip


def with_another_activation(atlas: Atlas, device: torch.device) -> dict[str, dict[str, float]]:
    """-> for each bundled model its accuracy among the validation names, as it is and with the other activation."""
    task, results = validation_task(atlas), {}
    for name in ("glyphs-tiny", "glyphs-vit"):
        model, tokenizer = load(name, device)
        other = CLIP(replace(model.config, quick_gelu=not model.config.quick_gelu)).to(device)
        other.load_state_dict(model.state_dict())
        results[name] = {
            "as trained": evaluate_task(model, tokenizer, task).accuracy,
            "the other": evaluate_task(other, tokenizer, task).accuracy,
        }
    return results


def last(runs: dict[str, list[list[dict]]], name: str, what: str) -> list[float]:
    """A figure of the last record, one a seed."""
    return [records[-1][what] for records in runs[name]]


def claims_of(runs: dict[str, list[list[dict]]], others: dict[str, dict[str, float]]) -> list[dict]:
    """What the runs say of ln N, of curves as witnesses, of what no curve shows, and of the limit of the scale."""
    broken = [(name, records) for name in MISTAKES for records in runs[name]]
    named = [suspects(records) for _, records in broken]
    found = sum(name in names for (name, _), names in zip(broken, named))
    alone = sum({name} == names for (name, _), names in zip(broken, named))
    at_guessing = [
        last(runs, name, "loss") for name in ("captions misaligned", "captions all alike", "first token read")
    ]
    highest = max(record["logit_scale"] for records in runs["no clamp"] for record in records)
    same = "equal to the bit" if runs["no clamp"] == runs["right"] else "not the same"
    vit = others["glyphs-vit"]

    def after(name: str) -> str:
        return f"{name} {percent(last(runs, name, 'accuracy'))}"

    return [
        claim("a loss at ln N: the pairs say nothing", f"ln {BATCH} = {math.log(BATCH):.3f}, by definition",
              "captions misaligned, all alike, read at the first token: "
              + ", ".join(spread(losses, ".3f") for losses in at_guessing)
              + f"; the right run {spread(last(runs, 'right', 'loss'), '.3f')}"),
        claim("loss and scale alone name the mistake", "not in the paper",
              f"one suspect in {alone} of {len(broken)} broken runs, three or five in the others; the culprit among them in {found}"),
        claim("broken CLIPs learn, too", "not in the paper",
              "held-out pairs found: " + ", ".join(map(after, ("right", "one-sided loss", "soft targets",
                                                               "gathered without gradient", "no normalisation")))),
        claim("GELU for QuickGELU spoils loaded weights", "not in the paper; a known trap",
              f"not in models this small: {after('right')}, {after('GELU for QuickGELU')}; a ViT of four layers among "
              f"held-out names {percent([vit['as trained']])}, {percent([vit['the other']])}"),
        claim("the scale is clipped at 100", "clipped to prevent training instability",
              f"never needed here: without the limit the scale peaks at {highest:.1f}, and runs are {same}"),
    ]  # fmt: skip


def as_text(results: dict) -> str:
    """A line for the right run and each mistake: where it starts and ends; then what to look at, and the claims."""
    runs = results["runs"]
    header = ("", "first loss", "last loss", "last scale", "pictures find", "captions find", "captions' spread")
    rows = [
        (name, spread([records[0]["loss"] for records in seeds], ".2f"), spread(last(runs, name, "loss"), ".2f"),
         spread(last(runs, name, "logit_scale"), ".2f"), percent(last(runs, name, "accuracy")),
         percent(last(runs, name, "accuracy_of_captions")), spread(last(runs, name, "spread"), ".2f"))
        for name, seeds in runs.items()
    ]  # fmt: skip
    about = f"{results['images_seen']:,} pictures in batches of N = {BATCH}; ln N = {math.log(BATCH):.2f}\n\n"
    look = "\n".join(f"  {name:<26} {what}" for name, what in results["look_at"].items())
    return about + table(header, rows) + "\n\nwhat to look at\n" + look + "\n\n" + claims_as_text(results["claims"])


def plot(results: dict) -> None:
    """Small multiples: loss, scale and accuracy of each mistake, over those of the right run in grey."""
    columns = (("loss", "loss, nats", 1), ("logit_scale", "logit scale", 1), ("accuracy", "pairs found, %", 100))
    names, guessing = list(results["look_at"]), math.log(results["batch_size"])
    most = max(record["accuracy"] for seeds in results["runs"].values() for records in seeds for record in records)
    half = -(-len(names) // 2)
    figure, axes = plt.subplots(half, 6, figsize=(12, 1.9 * half + 0.6), sharex=True)
    for place, name in enumerate(names):
        row, block = place % half, 3 * (place // half)
        for ax, (key, label, unit) in zip(axes[row, block : block + 3], columns):
            for who, colour, width in (("right", GREY, 1.4), (name, VERMILION, 1.6)):
                for records in results["runs"][who]:
                    seen = [record["images_seen"] / 1000 for record in records]
                    ax.plot(seen, [unit * record[key] for record in records], color=colour, linewidth=width, alpha=0.8)
            ax.set(ylabel=label, ylim={"loss": (0, 1.7 * guessing), "logit_scale": (8, 22), "accuracy": (0, None)}[key])
            ax.yaxis.label.set_size(9)
            ax.tick_params(labelsize=8)
        loss, scale, found = axes[row, block : block + 3]
        scale.set_yticks((10, 15, 20))
        loss.axhline(guessing, color="black", linestyle=":", linewidth=1.2)
        first = np.mean([records[0]["loss"] for records in results["runs"][name]])
        if first > 1.7 * guessing:
            loss.text(
                0.97, 0.9, f"starts at {first:.0f}", transform=loss.transAxes, ha="right", va="top", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=5,
            )  # fmt: skip
        loss.set_title(name, fontsize=11, fontweight="bold")
        found.set_ylim(0, 110 * most)
    for ax in axes[-1]:
        ax.set_xlabel("pictures seen, thousands", fontsize=9)
    figure.suptitle(
        f"Ten broken CLIPs (orange), a line a seed, over the right one (grey); dotted: ln {results['batch_size']}, guessing"
    )

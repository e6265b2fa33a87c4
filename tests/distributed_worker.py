"""What test_distributed.py starts under torchrun: python -m torch.distributed.run ... distributed_worker.py JOB FOLDER"""

import os
import signal
import sys
from pathlib import Path

import torch

import minclip
from minclip import CLIP, CLIPConfig, TrainConfig, distributed
from minclip.train import prepare, train_step

TOKENIZER = minclip.CLIPTokenizer.train(["ab cd ef gh"], 514, context_length=8)
MODEL = CLIPConfig(8, 8, 1, 16, 4, 8, TOKENIZER.vocab_size, 16, 2, 1, vision_heads=2)
CHUNKS = (None, 2)


class Noise:
    """Pairs that are fixed by (seed, place in the stream) alone; optionally something happens at a place."""

    def __init__(self, at: int | None = None, happens=None):
        self.at, self.happens = at, happens

    def batches(self, batch_size: int, seed: int, start: int, stride: int | None = None):
        while True:
            if self.at is not None and start <= self.at < start + batch_size:
                self.happens()
            draw = [torch.Generator().manual_seed(10_000 * seed + start + i) for i in range(batch_size)]
            images = torch.stack([torch.rand(3, 8, 8, generator=g, dtype=torch.float64) for g in draw])
            yield images, [" ".join(["ab", "cd", "ef", "gh"][: 1 + (start + i) % 4]) for i in range(batch_size)]
            start += stride or batch_size


def model(dropout: float = 0.0) -> CLIP:
    torch.manual_seed(distributed.rank())  # each process starts elsewhere: the first one's weights must win
    clip = CLIP(MODEL).double()
    if dropout:
        clip.ln_final = torch.nn.Sequential(clip.ln_final, torch.nn.Dropout(dropout))
    return clip


def config(chunk: int | None) -> TrainConfig:
    return TrainConfig(images_seen=96, batch_size=12, chunk=chunk, log_every=1, checkpoint_every=2, clip_grad=1e9)


def gradients(chunk: int | None) -> dict[str, torch.Tensor]:
    """Every parameter's gradient after one step, and the loss."""
    clip, how = model(), config(chunk)
    images, captions = next(iter(Noise().batches(12, 0, 0)))
    n = distributed.share(12)
    mine = slice(distributed.rank() * n, (distributed.rank() + 1) * n)
    optimizer = torch.optim.SGD(clip.parameters(), lr=0.0)
    loss = train_step(prepare(clip, how), clip, optimizer, images[mine], TOKENIZER(captions)[mine], how)
    return {name: p.grad for name, p in clip.named_parameters()} | {"loss": distributed.mean(loss)}


def curve(chunk: int | None, **options) -> torch.Tensor:
    return torch.tensor([r["loss"] for r in minclip.fit(model(), TOKENIZER, Noise(), config(chunk), **options)])


def resumed(chunk: int | None, folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a run with dropout, unbroken, and stopped by Ctrl-C in the last process alone, then resumed."""
    whole, broken = model(dropout=0.5), model(dropout=0.5)
    torch.manual_seed(100 + distributed.rank())  # each process its own random numbers
    minclip.fit(whole, TOKENIZER, Noise(), config(chunk))
    torch.manual_seed(100 + distributed.rank())
    interrupt = Noise(at=4 * 12 - 1, happens=lambda: os.kill(os.getpid(), signal.SIGINT))  # the last of step 4
    try:
        minclip.fit(broken, TOKENIZER, interrupt, config(chunk), run=folder)
    except KeyboardInterrupt as stop:
        assert "after step 4 of 8" in str(stop), stop
    else:
        raise AssertionError("the interrupt went unnoticed")
    torch.manual_seed(999)  # what the checkpoint holds must replace this
    anew = model(dropout=0.5)
    records = minclip.fit(anew, TOKENIZER, Noise(), config(chunk), run=folder, resume=True)
    assert [record["step"] for record in records] == list(range(1, 9)), records
    finished = minclip.fit(model(dropout=0.5), TOKENIZER, Noise(), config(chunk), run=folder, resume=True)
    assert finished[-1]["loss"] == records[-1]["loss"], "each process, though it has nothing left to do"
    return {"unbroken": parameters(whole), "resumed": parameters(anew)}


def parameters(clip: CLIP) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in clip.parameters()])


def main(job: str, folder: Path) -> None:
    with distributed.joined():
        if job == "lose-a-process":
            leave = Noise(
                at=5 * 12 - 1, happens=lambda: os.kill(os.getpid(), signal.SIGKILL)
            )  # in step 5, the last rank
            minclip.fit(model(), TOKENIZER, leave, config(None), run=folder / "lost")
            return
        results = {}
        for chunk in CHUNKS:
            results[f"gradients {chunk}"] = gradients(chunk)
            results[f"curve {chunk}"] = curve(chunk)
            results[f"resumed {chunk}"] = resumed(chunk, folder / f"run {distributed.world_size()} {chunk}")
        torch.save(results, folder / f"{distributed.world_size()} processes, {distributed.rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except minclip.MinclipError as error:
        sys.exit(f"minclip: {error}")

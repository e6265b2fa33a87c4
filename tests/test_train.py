"""The loop: what it optimises, what it leaves on disk, and what survives kill -9, Ctrl-C, a full disk and NaN."""

import builtins
import io
import itertools
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import resource
import signal
import sys
import threading
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import minclip
from minclip import CLIP, CLIPConfig, CLIPTokenizer, MinclipError, TrainConfig, checkpoint, demo
from minclip.checkpoint import CHECKPOINT, METRICS, PREVIOUS, read_checkpoint, write_atomically
from minclip.data.painting import GlyphPairs, Paint
from minclip.data.tasks import DIGITS
from minclip.presets import Preset
from minclip.train import (
    check_compilable,
    check_finite,
    check_normalizable,
    learning_rate,
    make_optimizer,
    prepare,
    train_step,
)

CONFIG = TrainConfig(images_seen=8 * 24, batch_size=8, checkpoint_every=3, log_every=2, warmup=0.2)
TOKENIZER = CLIPTokenizer.train(["noise"], 520, 12)


class NoisePairs:
    """Pictures of noise and captions, each batch fixed by (seed, place); from `broken_from` on, NaN."""

    def __init__(self, broken_from: float = math.inf):
        self.broken_from = broken_from

    def batches(self, batch_size, seed, start):
        while True:
            generator = torch.Generator().manual_seed(seed * 10**6 + start)
            numbers = torch.randint(1000, (batch_size,), generator=generator).tolist()
            images = torch.rand(batch_size, 3, 8, 8, generator=generator)
            yield images * (math.nan if start >= self.broken_from else 1), [f"noise {n}" for n in numbers]
            start += batch_size


def new_model(**sizes) -> CLIP:
    torch.manual_seed(0)
    sizes = dict(embed_dim=8, image_resolution=8, vision_layers=1, vision_width=16, vision_patch_size=4, context_length=12,
                 vocab_size=TOKENIZER.vocab_size, transformer_width=16, transformer_heads=2, transformer_layers=1,
                 vision_heads=2) | sizes  # fmt: skip
    return CLIP(CLIPConfig(**sizes))


def train(run: Path | None = None, resume: bool = False, config: TrainConfig = CONFIG, pairs=None, **options):
    model = new_model()
    records = minclip.fit(model, TOKENIZER, pairs or NoisePairs(), config, run, resume, **options)
    return model, records


def assert_same_bits(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict:
    """The checkpoint at the end of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder)
    return read_checkpoint(folder)


# What is optimised


def test_decay_falls_on_matrices_alone():
    model = CLIP(CLIPConfig(8, 32, (1, 1, 1, 1), 4, None, 12, 40, 16, 2, 1, vision_heads=2))
    decay, no_decay = make_optimizer(model, replace(CONFIG, weight_decay=0.3)).param_groups
    assert decay["weight_decay"] == 0.3 and no_decay["weight_decay"] == 0
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    spared = {name_of[p] for p in no_decay["params"]}
    assert len(decay["params"]) + len(spared) == len(name_of)
    gains = {
        name
        for name in name_of.values()
        if name.endswith("bias") or "ln_" in name or ".bn" in name or "downsample.1" in name
    }
    assert spared == gains | {"logit_scale"}
    assert decay["betas"] == (CONFIG.beta1, CONFIG.beta2) and decay["eps"] == CONFIG.eps


def test_the_learning_rate_climbs_and_falls_as_a_cosine():
    config = TrainConfig(images_seen=1000, batch_size=10, lr=2.0, warmup=0.1)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10:] == pytest.approx([2 * math.cos(math.pi * (i - 10) / 180) ** 2 for i in range(10, 100)])
    assert rates[55] == pytest.approx(1.0) and 0 < rates[99] < 0.01
    assert learning_rate(0, replace(config, warmup=0.0)) == 2.0


def test_the_loss_falls_and_the_records_say_what_happened(tmp_path, atlas, tokenizer, tiny):
    pairs = GlyphPairs(
        atlas.select(
            np.isin(atlas.name, [f"digit {word}" for word in DIGITS[:8]])
            & (atlas.of_faces("typeface") == "DejaVu Sans")
        )
    )
    heard = []
    config = TrainConfig(images_seen=8 * 400, batch_size=8, lr=3e-3, log_every=100)
    records = minclip.fit(tiny, tokenizer, pairs, config, tmp_path, on_log=heard.append)
    assert heard == records == [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [r["step"] for r in records] == [100, 200, 300, 400] and records[-1]["images_seen"] == 3200
    assert records[0]["loss"] < 2 * math.log(8)
    assert records[-1]["loss"] < 1.2 < math.log(8)  # of guessing
    assert records[1]["lr"] == learning_rate(199, config) and records[-1]["seconds"] > records[0]["seconds"] > 0
    assert records[-1]["logit_scale"] == pytest.approx(tiny.logit_scale.exp().item())


def test_progress_is_shown_wherever_stderr_goes_but_not_from_a_thread(monkeypatch, capsys):
    """In a notebook and in a log stderr is no terminal; a window that trains in a thread shows progress itself."""
    monkeypatch.setattr(minclip.train, "tqdm", partial(minclip.train.tqdm, disable=False))  # the tests are quiet
    train()
    assert re.search(r"training: 100%.* 192/192 .*loss=\d\.\d+, scale=\d+", capsys.readouterr().err)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert capsys.readouterr().err == ""


def test_long_gradients_are_clipped_and_the_scale_stays_below_100():
    model = new_model()
    torch.nn.init.constant_(model.logit_scale, 6.0)
    minclip.fit(model, TOKENIZER, NoisePairs(), replace(CONFIG, images_seen=8))
    assert model.logit_scale.exp().item() <= 100 * (1 + 1e-6)


RESNET = dict(image_resolution=32, vision_layers=(1, 1, 1, 1), vision_width=4, vision_patch_size=None)


class WidePairs(NoisePairs):
    """The same noise in 32 px, as a ResNet wants it."""

    def batches(self, *place):
        for images, captions in super().batches(*place):
            yield images.repeat(1, 1, 4, 4), captions


@pytest.mark.parametrize("step", [0, 12])
def test_after_training_a_picture_is_encoded_by_itself_whether_trained_now_or_before(tmp_path, step):
    config, pairs = replace(CONFIG, images_seen=8 * 12), WidePairs()
    if step:
        minclip.fit(new_model(**RESNET), TOKENIZER, pairs, config, tmp_path)
    model = new_model(**RESNET)
    minclip.fit(model, TOKENIZER, pairs, config, tmp_path, resume=bool(step))
    images = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(model.encode_image(images)[:1], model.encode_image(images[:1]))


@pytest.mark.parametrize(
    ("processes", "sizes", "lonely"),
    [
        (1, dict(batch_size=9, chunk=4), True), (1, dict(chunk=1), True), (2, dict(batch_size=2), True),
        (1, dict(chunk=6), False), (1, dict(batch_size=9, chunk=9), False), (1, dict(batch_size=9, chunk=12), False),
    ],
)  # fmt: skip
def test_a_batch_that_leaves_a_resnet_one_small_picture_by_itself(processes, sizes, lonely, monkeypatch):
    monkeypatch.setattr(minclip.distributed, "world_size", lambda: processes)
    config = replace(CONFIG, images_seen=9, **sizes)
    if lonely:
        with pytest.raises(MinclipError, match="one picture of 32 px by itself"):
            minclip.fit(new_model(**RESNET), TOKENIZER, WidePairs(), config)
    else:
        minclip.fit(new_model(**RESNET), TOKENIZER, WidePairs(), config)


def test_without_triton_a_gpu_run_is_not_compiled_and_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(minclip.train, "has_triton", lambda: False)
    compiled = replace(CONFIG, compile=True)
    with pytest.raises(MinclipError, match="needs Triton.*--train.no-compile"):
        check_compilable(torch.device("cuda"), compiled)
    check_compilable(torch.device("cpu"), compiled)
    check_compilable(torch.device("cuda"), CONFIG)


def test_larger_pictures_may_stand_alone():
    model = new_model(**RESNET | dict(image_resolution=64)).train()
    model.encode_image(torch.randn(1, 3, 64, 64))
    check_normalizable(model, replace(CONFIG, chunk=1))


# A run goes on to the same bits


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch, unbroken):
    monkeypatch.chdir(tmp_path)
    model, _ = train()
    assert_same_bits(model.state_dict(), unbroken["model"])
    assert not list(tmp_path.iterdir())


class Stop(Exception):
    pass


def stop_at(step: int):
    def on_log(record):
        if record["step"] == step:
            raise Stop

    return on_log


@pytest.mark.parametrize("step", [2, 4, 14, 24])
def test_a_resumed_run_is_the_unbroken_one(tmp_path, step, unbroken):
    with pytest.raises(Stop):
        train(tmp_path, on_log=stop_at(step))
    assert read_checkpoint(tmp_path)["step"] == (step - 1) // 3 * 3  # at the very least that of step 0
    model, records = train(tmp_path, resume=True)
    assert_same_bits(model.state_dict(), unbroken["model"])
    written = [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert written == [r["step"] for r in records] == sorted({*range(2, 25, 2), *range(3, 25, 3)})


def test_the_optimiser_and_the_random_states_are_the_unbroken_ones_too(tmp_path, unbroken):
    with pytest.raises(Stop):
        train(tmp_path, on_log=stop_at(10))
    torch.rand(7)
    train(tmp_path, resume=True)
    saved = read_checkpoint(tmp_path)
    assert saved["step"] == 24 and torch.equal(saved["random_states"]["cpu"], unbroken["random_states"]["cpu"])
    for mine, other in zip(saved["optimizer"]["state"].values(), unbroken["optimizer"]["state"].values()):
        assert_same_bits(mine, other)


def test_resuming_a_finished_run_changes_nothing(tmp_path, unbroken):
    train(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    model, records = train(tmp_path, resume=True)
    assert_same_bits(model.state_dict(), unbroken["model"])
    assert records[-1]["step"] == 24 and (tmp_path / CHECKPOINT).read_bytes() == before


def test_lines_that_are_no_records_are_passed_over(tmp_path):
    train(tmp_path)
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"note": "mine"}\n[1]\n{"step": "last"}\n{"step": 2')
    _, records = train(tmp_path, resume=True)
    assert [record["step"] for record in records] == sorted({*range(2, 25, 2), *range(3, 25, 3)})


def test_a_finished_run_without_its_records_is_saved_and_the_loss_of_them_named(tmp_path):
    preset = Preset(new_model().config, train=CONFIG)
    how = (NoisePairs(), ["noise"], tmp_path, torch.device("cpu"))
    model, _, _ = demo.train_on_pairs(preset, *how)
    (tmp_path / METRICS).unlink()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MinclipError, match="metrics.jsonl is gone or empty"):
        demo.train_on_pairs(preset, *how, resume=True)
    assert_same_bits(minclip.load(tmp_path)[0].state_dict(), model.state_dict())


# Real processes, killed


def in_child(run: Path, resume: bool = False, sabotage=None) -> multiprocessing.Process:
    """`train` in a process of its own; what it would print ends up beside the folder."""

    def work():
        if sabotage is not None:
            sabotage()
        try:
            train(run, resume)
        except (MinclipError, KeyboardInterrupt) as error:
            run.with_suffix(".said").write_text(f"{type(error).__name__}: {error}")
            sys.exit(1)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def finish(run: Path, unbroken: dict) -> None:
    """Resume the run to its end, and compare bits."""
    train(run, resume=(run / CHECKPOINT).exists())
    saved = read_checkpoint(run)
    assert_same_bits(saved["model"], unbroken["model"])
    assert not list(run.glob("*.partial"))
    assert [json.loads(line)["step"] for line in (run / METRICS).read_text().splitlines()][-1] == 24


def test_killed_at_random_moments_it_still_ends_in_the_same_bits(tmp_path, unbroken):
    moments = random.Random(int(os.environ.get("MINCLIP_KILL_SEED", "0")))
    for attempt in range(int(os.environ.get("MINCLIP_KILLS", "4"))):
        child = in_child(tmp_path, resume=(tmp_path / CHECKPOINT).exists())
        time.sleep(moments.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode in (-signal.SIGKILL, 0), attempt
        if (tmp_path / CHECKPOINT).exists():
            read_checkpoint(tmp_path)  # whole, whatever the moment
    finish(tmp_path, unbroken)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(call: int):
    """In the `call`-th checkpoint, after some of its bytes."""
    save, calls = torch.save, []

    def half(content, file):
        calls.append(1)
        if len(calls) == call:
            file.write(b"PK" + bytes(1000))
            file.flush()
            die()
        save(content, file)

    torch.save = half


def die_around_renaming(call: int, after: bool):
    rename, calls = os.replace, []

    def replace_and_die(*paths):
        calls.append(1)
        if after or len(calls) < call:
            rename(*paths)
        if len(calls) == call:
            die()

    os.replace = replace_and_die


@pytest.mark.parametrize(
    "sabotage",
    [lambda: die_half_way(1), lambda: die_half_way(4), lambda: die_around_renaming(5, False), lambda: die_around_renaming(5, True)],
    ids=["first checkpoint half written", "fourth half written", "before renaming", "after renaming"],
)  # fmt: skip
def test_killed_while_saving(tmp_path, unbroken, sabotage):
    child = in_child(tmp_path, sabotage=sabotage)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    finish(tmp_path, unbroken)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, unbroken):
    run = tmp_path / "run"
    child = in_child(run)
    while not (run / CHECKPOINT).exists() and child.is_alive():
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGINT)
    child.join()
    if child.exitcode:  # else it had come to its end before the signal did
        said = run.with_suffix(".said").read_text()
        step = read_checkpoint(run)["step"]
        assert said == f"KeyboardInterrupt: Stopped after step {step} of 24. Saved in {run}; add --resume to go on."
    finish(run, unbroken)


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(tmp_path, unbroken):
    def interrupt(record):
        if record["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="Stopped after step 11 of 24"):
        train(tmp_path, on_log=interrupt)
    assert read_checkpoint(tmp_path)["step"] == 11
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt, match="nothing was saved"):
        train(None, on_log=interrupt)
    finish_steps = train(tmp_path, resume=True)[0].state_dict()
    assert_same_bits(finish_steps, unbroken["model"])


def test_disk_full_while_saving(tmp_path):
    run = tmp_path / "run"
    whole = train(run, config=replace(CONFIG, images_seen=8 * 3)) and (run / CHECKPOINT).stat().st_size
    other = tmp_path / "other"

    def fill_the_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole // 2, whole // 2))

    child = in_child(other, sabotage=fill_the_disk)
    child.join()
    said = other.with_suffix(".said").read_text()
    assert child.exitcode == 1 and said.startswith(f"MinclipError: Could not write {other / CHECKPOINT}")
    assert "free some space" in said and "\n" not in said
    assert {path.name for path in other.iterdir()} == {CHECKPOINT, METRICS}  # nothing half-written
    assert read_checkpoint(other)["step"] == 0  # smaller, for the optimiser remembers nothing yet


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), RuntimeError("write failed"), KeyboardInterrupt()]
)
def test_a_file_is_written_whole_or_not_at_all(tmp_path, failure):
    path = tmp_path / "deeper" / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def write(file):
        file.write(b"ne")
        raise failure

    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else MinclipError):
        write_atomically(path, write)
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_full_disk_while_noting_metrics(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "open", full, raising=False)
    with pytest.raises(MinclipError, match="No space left on device"):
        checkpoint.append_metrics(tmp_path, {"step": 1})


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_run_folder_that_is_a_file(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MinclipError, match="Could not write .*name a folder you may write to"):
        train(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "in the way"


# NaN


def test_nan_ends_the_run_and_names_the_step_and_the_last_good_checkpoint(tmp_path, unbroken):
    with pytest.raises(
        MinclipError, match=r"became nan by step 14 \(112 pictures\).*last good checkpoint is"
    ) as caught:
        train(tmp_path, pairs=NoisePairs(broken_from=8 * 12))
    assert str(tmp_path / CHECKPOINT) in str(caught.value)
    saved = read_checkpoint(tmp_path)
    assert saved["step"] == 12 and all(t.isfinite().all() for t in saved["model"].values())
    finish(tmp_path, unbroken)


def test_data_that_end_before_the_run_does():
    class Ending(NoisePairs):
        def batches(self, batch_size, seed, start):
            yield from itertools.islice(super().batches(batch_size, seed, start), 3)

    with pytest.raises(MinclipError, match="ended after 24 pictures; 192 were asked for"):
        train(pairs=Ending())


def test_nan_at_once_leaves_the_runs_own_beginning_not_an_earlier_runs_checkpoint(tmp_path):
    train(tmp_path)
    earlier = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(MinclipError, match="last good checkpoint is"):
        train(tmp_path, pairs=NoisePairs(broken_from=0))
    assert (tmp_path / PREVIOUS).read_bytes() == earlier  # set aside, not lost
    saved = read_checkpoint(tmp_path)
    assert saved["step"] == 0
    assert_same_bits(saved["model"], new_model().state_dict())
    with pytest.raises(MinclipError, match="No checkpoint had been saved"):
        train(pairs=NoisePairs(broken_from=0))


def test_a_broken_off_run_leaves_its_own_weights_to_load_not_an_earlier_runs(tmp_path):
    model, _ = train(tmp_path)
    minclip.save(model, TOKENIZER, tmp_path)
    earlier = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(Stop):
        train(tmp_path, config=replace(CONFIG, seed=1), on_log=stop_at(4))
    assert_same_bits(minclip.load(tmp_path)[0].state_dict(), read_checkpoint(tmp_path)["model"])
    assert (tmp_path / "model.previous.safetensors").read_bytes() == earlier  # set aside, not lost


# Checkpoints that are not what they should be


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    train(folder, config=replace(CONFIG, images_seen=8 * 3))
    return (folder / CHECKPOINT).read_bytes()


@pytest.mark.parametrize("file", [CHECKPOINT, METRICS])
@pytest.mark.parametrize("refusal", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, file, refusal):
    def refuse(path, *how, **options):
        if Path(path).name == file and "w" not in str(how):
            raise refusal
        return opened(path, *how, **options)

    train(tmp_path)
    opened = io.open
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", refuse)
    with pytest.raises(MinclipError, match=f"{file} cannot be read: .*{refusal.strerror}") as caught:
        train(tmp_path, resume=True)
    assert "damaged" not in str(caught.value) and "elete" not in str(caught.value)


@pytest.mark.parametrize("file", [CHECKPOINT, "model.safetensors"])
def test_an_earlier_run_that_cannot_be_set_aside(tmp_path, file):
    (tmp_path / file).mkdir()
    (tmp_path / checkpoint.SET_ASIDE[file]).write_text("in the way")
    with pytest.raises(MinclipError, match=f"Could not rename .*{file}"):
        train(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint(tmp_path, good, share):
    (tmp_path / CHECKPOINT).write_bytes(good[: int(share * len(good))])
    with pytest.raises(MinclipError, match="damaged"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_with_one_bit_changed(tmp_path, good):
    places = random.Random(0)
    for _ in range(20):
        changed = bytearray(good)
        changed[places.randrange(int(0.9 * len(good)))] ^= 1 << places.randrange(8)
        (tmp_path / CHECKPOINT).write_bytes(changed)
        try:
            same = read_checkpoint(tmp_path)
        except MinclipError as error:
            assert "damaged" in str(error) or "pickled" in str(error)
        else:  # a bit of the filling between the parts
            (tmp_path / CHECKPOINT).write_bytes(good)
            assert_same_bits(same["model"], read_checkpoint(tmp_path)["model"])


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_a_pickle_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for save in (lambda file: file.write(pickle.dumps(Trap())), lambda file: torch.save({"model": Trap()}, file)):
        with open(CHECKPOINT, "wb") as file:
            save(file)
        with pytest.raises(MinclipError, match="could run somebody's code"):
            read_checkpoint(tmp_path)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"weights": torch.ones(2)}])
def test_a_file_of_torch_that_is_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(MinclipError, match="something else"):
        read_checkpoint(tmp_path)


def test_checkpoints_of_another_model_recipe_or_tokenizer(tmp_path):
    train(tmp_path, config=replace(CONFIG, images_seen=8 * 3))
    before = (tmp_path / CHECKPOINT).read_bytes()
    config = replace(CONFIG, images_seen=8 * 3)
    for model, tokenizer, other, complaint in (
        (new_model(embed_dim=4), TOKENIZER, config, "another model configuration .embed_dim 8 there, 4 here"),
        (new_model(), TOKENIZER, replace(config, lr=0.5), "another training configuration .lr 0.001 there, 0.5 here"),
        (new_model(), CLIPTokenizer.train(["sound sounds"], 518, 12), config, "another tokenizer"),
    ):
        assert tokenizer.vocab_size <= model.config.vocab_size
        with pytest.raises(MinclipError, match=complaint):
            minclip.fit(model, tokenizer, NoisePairs(), other, tmp_path, resume=True)
    with pytest.raises(MinclipError, match="name the run folder"):
        minclip.fit(new_model(), TOKENIZER, NoisePairs(), config, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_of_pictures_painted_otherwise(tmp_path):
    pairs, config = NoisePairs(), replace(CONFIG, images_seen=8 * 3)
    pairs.paint = Paint(noise=0.0)
    train(tmp_path, config=config, pairs=pairs)
    pairs.paint = Paint(noise=0.5)
    with pytest.raises(MinclipError, match="another training configuration .noise 0.0 there, 0.5 here"):
        train(tmp_path, True, config, pairs)
    older = read_checkpoint(tmp_path)
    del older["train_config"]["noise"]  # as before it was kept
    checkpoint.write_checkpoint(tmp_path, older)
    train(tmp_path, True, config, pairs)


def test_a_tokenizer_that_is_too_big_for_the_model():
    with pytest.raises(MinclipError, match="vocab_size=tokenizer.vocab_size"):
        minclip.fit(new_model(vocab_size=100), TOKENIZER, NoisePairs(), CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        dict(batch_size=1), dict(images_seen=7), dict(warmup=1.0), dict(warmup=math.nan), dict(log_every=0),
        dict(checkpoint_every=-1), dict(lr=0.0), dict(lr=math.nan), dict(eps=-1.0), dict(beta2=1.0), dict(clip_grad=0.0),
        dict(weight_decay=-0.1), dict(seed=-1), dict(seed=2**64), dict(precision="bf16"), dict(chunk=0),
    ],
)  # fmt: skip
def test_recipes_that_make_no_run(change):
    with pytest.raises(MinclipError, match=next(iter(change))):
        replace(CONFIG, **change)


def test_defaults_are_the_papers_for_vision_transformers():
    config = TrainConfig()  # Table 19
    assert (config.weight_decay, config.beta1, config.beta2, config.eps) == (0.2, 0.9, 0.98, 1e-6)


@pytest.mark.parametrize("chunk", [None, 5])
def test_a_step_is_no_longer_than_the_gradient_may_be(chunk):
    model, config = new_model(), replace(CONFIG, clip_grad=1e-3, chunk=chunk)
    images, captions = next(NoisePairs().batches(8, 0, 0))
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    train_step(prepare(model, config), model, optimizer, images, TOKENIZER(captions), config)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_the_clock_of_a_resumed_run_goes_on(tmp_path):
    with pytest.raises(Stop):
        train(tmp_path, on_log=stop_at(8))
    lines = [json.loads(line) | {"seconds": 1000.0} for line in (tmp_path / METRICS).read_text().splitlines()]
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, records = train(tmp_path, resume=True)
    assert all(record["seconds"] >= 1000 for record in records) and records[-1]["seconds"] < 1500


OTHERWISE = {
    "images_seen": 8 * 25, "batch_size": 6, "chunk": 4, "lr": 0.5, "weight_decay": 0.3, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3,
    "warmup": 0.3, "clip_grad": 2.0, "seed": 1, "precision": "bfloat16", "compile": True, "checkpoint_every": 4, "log_every": 5,
}  # fmt: skip


def test_whatever_differs_in_the_recipe_is_named_on_resuming(tmp_path):
    train(tmp_path)
    assert set(OTHERWISE) == {field.name for field in fields(TrainConfig)}
    for name, value in OTHERWISE.items():
        with pytest.raises(MinclipError, match=f"another training configuration .*{name} .* there, .*{value}"):
            train(tmp_path, resume=True, config=replace(CONFIG, **{name: value}))


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def interrupt_twice(record):
        if record["step"] == 10:
            signal.raise_signal(signal.SIGINT)  # in this thread, and so at this place
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path, on_log=interrupt_twice)
    assert "Stopped after" not in str(caught.value) and read_checkpoint(tmp_path)["step"] == 9


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_no_loss_but_a_finite_one_passes(loss):
    with pytest.raises(MinclipError, match=f"became {loss} by step 3"):
        check_finite({"loss": loss, "step": 3, "images_seen": 24}, None)


def test_a_loaded_model_is_trained_in_training_mode():
    fresh, loaded = new_model(**RESNET), new_model(**RESNET).eval()  # as `load` leaves it
    for model in (fresh, loaded):
        minclip.fit(model, TOKENIZER, WidePairs(), replace(CONFIG, images_seen=8 * 3))
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), loaded.state_dict().values()))


def test_the_bytes_are_on_the_disk_before_the_name_points_at_them(tmp_path, monkeypatch):
    happened = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: happened.append(("fsync", os.fstat(number).st_size)) or fsync(number)
    )
    monkeypatch.setattr(
        os, "replace", lambda *paths: happened.append(("replace", os.stat(paths[0]).st_size)) or rename(*paths)
    )
    write_atomically(tmp_path / "file", lambda file: file.write(b"x" * 1000))
    assert happened == [("fsync", 1000), ("replace", 1000)]


def test_bytes_that_are_no_text_among_the_metrics_are_passed_over(tmp_path):
    train(tmp_path)
    with open(tmp_path / METRICS, "ab") as file:
        file.write(b'\xff\xfe{"step": 2\n')
    _, records = train(tmp_path, resume=True)
    assert [record["step"] for record in records] == sorted({*range(2, 25, 2), *range(3, 25, 3)})


@pytest.mark.parametrize("part", sorted(checkpoint.PARTS))
def test_a_checkpoint_without_one_of_its_parts(part, tmp_path):
    torch.save(dict.fromkeys(checkpoint.PARTS - {part}, 0), tmp_path / CHECKPOINT)
    with pytest.raises(MinclipError, match="something else"):
        read_checkpoint(tmp_path)

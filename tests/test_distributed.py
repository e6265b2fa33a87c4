"""Several processes, started by torchrun as a user would, are one process on the whole batch."""

import itertools
import subprocess
import sys
from pathlib import Path

import distributed_worker
import numpy as np
import pytest
import torch

from minclip import MinclipError, distributed
from minclip.checkpoint import read_checkpoint
from minclip.data.glyphs import load_atlas
from minclip.data.painting import GlyphPairs

WORKER = Path(distributed_worker.__file__)


def torchrun(processes: int, job: str, folder: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost",
        "--nproc-per-node", str(processes), str(WORKER), job, str(folder),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=WORKER.parent.parent)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """One process, this one, and the same work."""
    folder = tmp_path_factory.mktemp("alone")
    distributed_worker.main("train", folder)
    return torch.load(folder / "1 processes, 0.pt", weights_only=True)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_take_the_step_that_one_would_take_on_the_whole_batch(processes, alone, tmp_path):
    finished = torchrun(processes, "train", tmp_path)
    assert finished.returncode == 0, finished.stderr
    for number in range(processes):
        results = torch.load(tmp_path / f"{processes} processes, {number}.pt", weights_only=True)
        for chunk in (None, 2):
            for name, expected in alone["gradients None"].items():
                torch.testing.assert_close(
                    results[f"gradients {chunk}"][name], expected, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
                )
            torch.testing.assert_close(results[f"curve {chunk}"], alone["curve None"], rtol=0, atol=1e-10)
            weights = results[f"resumed {chunk}"]  # of a run with dropout, whose masks depend on the process
            torch.testing.assert_close(weights["resumed"], weights["unbroken"], rtol=0, atol=1e-10)
    everybody = [path.name for path in tmp_path.rglob("*") if path.name.endswith((".partial", ".jsonl"))]
    assert everybody == ["metrics.jsonl"] * 2, "one process alone writes"


def test_one_process_stopped_and_resumed_ends_on_the_same_bits(alone):
    for chunk in (None, 2):
        assert torch.equal(alone[f"resumed {chunk}"]["resumed"], alone[f"resumed {chunk}"]["unbroken"])


def test_a_lost_process_ends_the_run_and_the_last_checkpoint_stands(tmp_path):
    finished = torchrun(2, "lose-a-process", tmp_path)
    assert finished.returncode != 0
    assert "minclip: Process 0 of 2 stops: another one was lost" in finished.stderr, finished.stderr
    assert "stands; --resume goes on from it" in finished.stderr
    assert read_checkpoint(tmp_path / "lost")["step"] == 4


def test_processes_take_turns_at_the_painted_stream():
    atlas = load_atlas(32)
    pairs = GlyphPairs(atlas.select(np.arange(300)))
    whole = list(itertools.islice(pairs.batches(12, seed=3, start=24), 2))
    for number in range(3):
        own = list(itertools.islice(pairs.batches(4, seed=3, start=24 + 4 * number, stride=12), 2))
        for (images, captions), (all_images, all_captions) in zip(own, whole):
            rows = slice(4 * number, 4 * number + 4)
            assert captions == all_captions[rows]
            torch.testing.assert_close(images, all_images[rows])


def test_alone_everything_is_what_it_was():
    with distributed.joined():
        assert (distributed.world_size(), distributed.rank(), distributed.share(7)) == (1, 0, 7)
        assert distributed.any_of_us(True) and not distributed.any_of_us(False)
        assert distributed.mean(torch.tensor(3.0)) == 3 and distributed.gather(torch.ones(2)).shape == (1, 2)


def test_more_processes_than_gpus_get_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MinclipError, match="4 processes on this machine, and GPUs for 2"):
        distributed.check_device(torch.device("cuda"))
    distributed.check_device(torch.device("cpu"))


def test_a_batch_that_cannot_be_shared_out_gets_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(MinclipError, match="batch_size 6.*4 processes"):
        distributed.share(6)

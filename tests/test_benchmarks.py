"""The benchmarks run, insist that rivals agree, name those that are missing, and fit what they measure."""

import json
import sys
from pathlib import Path

import pytest
import torch

from minclip import CLIP, CLIPConfig, cli
from minclip.presets import PRESETS
from minclip.train import TrainConfig

sys.path.insert(0, str(Path(__file__).with_name("benchmarks")))
import growth
import peers
import throughput

CPU = torch.device("cpu")
TINY = CLIPConfig(8, 16, 1, 16, 8, 21, 64, 16, 2, 1, vision_heads=2)


@pytest.fixture
def without_peers(monkeypatch):
    for name in ("open_clip", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed


def test_missing_peers_are_skipped_by_name_and_the_rest_is_measured(without_peers, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "SMALL", {"glyphs": TINY})
    monkeypatch.setattr(throughput, "CPU_BATCH", {"glyphs": 8})
    report = throughput.bench(CPU, rounds=2)
    printed = capsys.readouterr().out
    assert "No GPU here" in printed
    assert "open_clip is left out: it is not installed." in printed
    assert "transformers is left out: it is not installed." in printed
    full, real = (results[0] for results in report["models"]["glyphs"].values())
    assert full["rival"] == real["rival"] == "minclip" and 0 < full["utilisation"] < 1.5
    assert real["pictures_per_second"] > 0


def no_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nAnd so on.")


def test_where_memory_ends_the_rest_is_measured_and_kept(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(throughput, "SMALL", {"large": TINY, "glyphs": TINY})
    monkeypatch.setattr(
        throughput, "bench_model", lambda name, *rest: no_memory() if name == "large" else {"measured": name}
    )
    monkeypatch.setattr(throughput, "bench_large_batch", no_memory)
    results = tmp_path / "bench.json"
    assert cli.main(["bench", "--device", "cpu", "--what", "throughput", "large-batch", "--json", str(results)]) == 0
    assert json.loads(results.read_text())["throughput"]["models"] == {"glyphs": {"measured": "glyphs"}}
    printed = capsys.readouterr().out
    assert "large is left out, as memory ended: CUDA out of memory. Tried to allocate 9 GiB." in printed
    assert "large-batch is left out, as memory ended" in printed


def test_the_batch_is_swept_until_memory_ends(monkeypatch, capsys):
    def stepper(rival, images, tokens, dtype):
        return no_memory if len(images) > most else lambda: None

    monkeypatch.setattr(throughput, "stepper", stepper)
    ours = [peers.make_minclip(CLIP(TINY), compiled=False)]
    most = 64
    assert throughput.best_batches(ours, TINY, CPU, torch.float32)["minclip"] in (16, 32)  # not the last
    most = 8
    with pytest.raises(torch.OutOfMemoryError):
        throughput.best_batches(ours, TINY, CPU, torch.float32)


def test_a_rival_without_memory_is_not_called_missing(monkeypatch):
    monkeypatch.setattr(peers, "make_open_clip", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        peers.rivals(CLIP(TINY), compiled=False)


def test_a_rival_that_computes_something_else_is_found_out(monkeypatch):
    torch.manual_seed(0)
    ours = peers.make_minclip(CLIP(TINY), compiled=False)
    twin = peers.make_minclip(CLIP(TINY), compiled=False)
    twin.model.load_state_dict(ours.model.state_dict())
    throughput.agree([ours, twin], TINY, CPU)
    one_sided = peers.Rival("other", twin.model, lambda *batch: torch.nn.functional.cross_entropy(
        twin.model(*batch)[2] * twin.model(*batch)[0] @ twin.model(*batch)[1].T, torch.arange(8)), True)  # fmt: skip
    with pytest.raises(AssertionError, match="other does not compute"):
        throughput.agree([ours, one_sided], TINY, CPU)


def test_real_captions_end_within_20_tokens_and_full_ones_at_the_context():
    images, tokens = throughput.batch(TINY, 64, CPU, real=True)
    assert images.shape == (64, 3, 16, 16) and tokens.shape == (64, 21)
    ends = tokens.argmax(dim=1)
    assert ends.min() >= 7 and ends.max() <= 19
    assert (throughput.batch(TINY, 8, CPU)[1].argmax(dim=1) == 20).all()


def test_exponents_and_the_crossing_are_those_of_the_points():
    sizes = [256 * 4**n for n in range(6)]
    points = [growth.Point("tiled loss", n, 1e-9 * n**2, 1e-6 * n) for n in sizes]
    points += [growth.Point("whole step", n, 1e-4 * n + 1e-9 * n**2, 1e-7 * n) for n in sizes]
    found = growth.fits(points)
    assert found["tiled loss: seconds grow with the power"] == 2
    assert found["tiled loss: gib grow with the power"] == 1
    assert found["candidates at which the loss takes as long as the encoders"] == 100_000


@pytest.mark.parametrize("preset, candidates", [("gpu", 32_768), ("laptop-gpu", 4096)])
def test_the_presets_for_gpus_are_steps_in_chunks(preset, candidates):
    train = PRESETS[preset].train
    assert isinstance(train, TrainConfig) and train.batch_size == candidates
    assert train.batch_size % train.chunk == 0 and train.precision == "bfloat16"


def speed_rows(bench: dict) -> list[str]:
    """The README's table of speed: for each network how many times as fast minclip is, captions full and real."""
    rows = []
    for name, ways in bench["models"].items():
        ratios = {(kind, r["rival"]): r["minclip_is_faster_by"] for kind, found in ways.items() for r in found[1:]}
        kinds = ("eager, captions at full length", "eager, captions at their real lengths")
        found = [ratios.get((kind, rival)) for rival in ("open_clip", "transformers") for kind in kinds]
        cells = [f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})" if ratio else "has none" for ratio in found]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def test_what_the_readme_tells_of_speed_was_measured():
    root = Path(__file__).parent.parent
    bench = json.loads((root / "notebooks" / "recorded" / "bench" / "throughput.json").read_text())["throughput"]
    readme, rows = (root / "README.md").read_text(), speed_rows(bench)
    assert len(rows) == 5 and [row for row in rows if row not in readme] == []

"""What a step takes, counted and measured."""

import torch

from minclip import measure


def test_clocks_and_spreads_and_peaks_are_what_they_say(monkeypatch):
    assert measure.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert measure.clock(cpu) is measure.time.perf_counter
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert measure.clock(cpu) is measure.time.process_time
    took = iter([2.0, 1.0, *[4.0] * 8])
    monkeypatch.setattr(measure, "seconds", lambda step, device: next(took))
    assert measure.matmul_peak(cpu, torch.float32) == 2 * 1536**3 / 1.0  # the fastest of ten


def test_attention_counts_as_products():
    q = torch.randn(1, 2, 8, 4)
    counted = measure.flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert counted == 2 * (2 * 2 * 8 * 8 * 4)  # q k and the mixing of v, two heads each

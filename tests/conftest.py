"""Shared by the tests: quiet, two threads at most, nothing written into the checkout; one atlas, one tiny model."""

import os
import signal

# Before torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: more threads only wait for each other
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import pytest
import torch

from minclip import CLIP, CLIPConfig, CLIPTokenizer
from minclip.data.glyphs import Atlas, load_atlas

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# A run that was started in the background ignores Ctrl-C, and so would the tests of it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No file of examples, no deadline (a shared machine stalls), the same examples each time.
hypothesis.settings.register_profile("minclip", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("minclip")


@pytest.fixture(scope="session")
def atlas() -> Atlas:
    """All of matplotlib's glyphs, 32 px; the very atlas that the command line loads, so rendered once."""
    return load_atlas(32, None)


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.train(["latin small letter a", "greek capital letter omega", "black chess knight"], 540, 16)


@pytest.fixture
def tiny(tokenizer) -> CLIP:
    """An untrained model of 32 px pictures, the same in each test, too small to be good at anything."""
    torch.manual_seed(0)
    return CLIP(CLIPConfig(8, 32, 1, 16, 8, 16, tokenizer.vocab_size, 16, 2, 1, vision_heads=2))

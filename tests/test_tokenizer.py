"""CLIP's byte-pair encoding: agreement with transformers', and what its own rows promise."""

import gzip
import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minclip import CLIPTokenizer, MinclipError
from minclip.tokenizer import END, START

CLIPS_OWN = Path(__file__).parents[2] / "shared/data/clip-vocabulary/bpe_simple_vocab_16e6.txt.gz"
WORDS = (  # noqa: SIM905
    "a photo of the black chess knight greek small letter alpha with psili braille pattern dots leftwards arrow "
    "über café naïve don't it's"
).split()


@pytest.fixture(scope="module")
def trained():
    rng = random.Random(0)
    return CLIPTokenizer.train([" ".join(rng.choices(WORDS, k=6)) for _ in range(300)], vocab_size=640)


@pytest.fixture(scope="module", params=["trained here", "CLIP's own"])
def tokenizer(request, trained):
    if request.param == "trained here":
        return trained
    if not CLIPS_OWN.exists():
        pytest.skip("optional data beside the checkout is absent: CLIP's own vocabulary")
    return CLIPTokenizer.from_openai_merges(CLIPS_OWN)


def odd_captions(number: int) -> list[str]:
    """Captions of plain words, and of all that a tokenizer may trip over."""
    rng = random.Random(1)
    alphabets = [
        "abcdefghijklmnopqrstuvwxyz", "ABCXYZÀÉÎÕüßøåŁŞİı", "0123456789²½٣①", "'\"!?.,;:-_()[]{}<>|/\\@#$%^&*+=~`",
        " \t\n\r\v\f\u00a0\u2003\u200b\u2028", "\x00\x01\x07\x1b\x1f\x7f\x80\x85\x9f", "😀👍🏽👩\u200d👧🇬🇧❤\ufe0f🏳\ufe0f\u200d🌈",
        "αβγДЖыक्षि漢字かなハングル한글ﷺ", "e\u0301a\u0308o\u0302\u0327ﬁⅣK\u212bſ", "\U00010400\U0001d538\U000e0041\ue000\uffff",
    ]  # fmt: skip
    whole = [*WORDS, START, END, "<|ENDOFTEXT|>", "</w>", "WE'LL", "don't've", "  "]
    captions = ["", " ", "word " * 200]
    while len(captions) < number:
        pieces = [
            rng.choice(whole)
            if rng.random() < 0.4
            else "".join(rng.choices(rng.choice(alphabets), k=rng.randint(1, 6)))
            for _ in range(rng.randint(1, 12))
        ]
        captions.append(rng.choice(["", " "]).join(pieces))
    return captions


def test_it_agrees_with_transformers_on_1000_captions(tokenizer):
    try:
        from transformers import CLIPTokenizer as Peer
    except ImportError as error:
        pytest.skip(f"transformers does not import here: {error}")
    model = json.loads(tokenizer.to_json())["model"]
    peer = Peer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    captions = odd_captions(1000)
    theirs = peer(captions, truncation=True, max_length=77)["input_ids"]
    rows = tokenizer(captions)
    for caption, row, ids in zip(captions, rows.tolist(), theirs, strict=True):
        assert row == ids + [0] * (len(row) - len(ids)), repr(caption)


def test_clips_own_vocabulary_is_numbered_as_clips():
    if not CLIPS_OWN.exists():
        pytest.skip("optional data beside the checkout is absent: CLIP's own vocabulary")
    tokenizer = CLIPTokenizer.from_openai_merges(CLIPS_OWN)
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (49408, 49407)
    # The ids that openai/CLIP gives this caption.
    assert tokenizer("a photo of a cat").tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407]]


def test_rows_are_bracketed_padded_with_0_and_cut_at_the_context_length(trained):
    tokenizer = CLIPTokenizer.from_json(trained.to_json(), context_length=8)
    rows = tokenizer(["a knight", "", "the small black chess knight " * 3])
    assert rows.shape == (3, 8)
    assert rows.dtype == torch.int64
    assert (rows[:, 0] == tokenizer.vocab_size - 2).all()
    end = rows.argmax(dim=1)  # as the model finds it
    assert (rows.gather(1, end[:, None]) == tokenizer.end_of_text).all()
    assert end[1] == 1
    assert end[2] == 7
    assert (rows[1, 2:] == 0).all()
    assert tokenizer.truncated == 1
    assert tokenizer("a knight").shape == (1, end[0] + 1)  # no longer than the longest caption


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_text_is_beyond_it(text):
    tokenizer = test_no_text_is_beyond_it.tokenizer
    ids = tokenizer(text)[0].tolist()
    assert ids[0] == tokenizer.vocab_size - 2
    assert tokenizer.end_of_text in ids


test_no_text_is_beyond_it.tokenizer = CLIPTokenizer.train(["a b c"], vocab_size=514)


@pytest.mark.parametrize("text", ["a black chess knight", "ÜBER  Café\tnaïve", "漢字 😀", "x2 & y!"])
def test_decode_gives_the_words_back(tokenizer, text):
    words = "".join(tokenizer.decode(tokenizer(text)[0]).split())
    assert words == "".join(text.lower().split())


def test_json_gives_the_same_tokenizer_back(tokenizer):
    again = CLIPTokenizer.from_json(tokenizer.to_json())
    assert again.to_json() == tokenizer.to_json()
    captions = odd_captions(50)
    assert torch.equal(again(captions), tokenizer(captions))


def test_json_of_older_versions_is_read_too(trained):
    contents = json.loads(trained.to_json())
    contents["model"]["merges"] = [" ".join(merge) for merge in contents["model"]["merges"]]
    contents["decoder"] = contents["normalizer"] = None  # what is CLIP's own is not taken from the file
    assert CLIPTokenizer.from_json(json.dumps(contents)).to_json() == trained.to_json()


def test_training_again_gives_the_same_merges():
    captions = [a + b for a in "abcdefghij" for b in "klmnopqrst"]  # all pairs are equally frequent
    files = {CLIPTokenizer.train(captions, vocab_size=550).to_json() for _ in range(4)}
    assert len(files) == 1  # so the order of a hash table decides nothing


def test_training_stays_within_its_size_and_shortens():
    captions = ["a black chess knight", "a white chess rook"] * 5
    trained = CLIPTokenizer.train(captions, vocab_size=530)
    assert trained.vocab_size == 530
    assert len(trained("a black chess knight")[0]) < len(CLIPTokenizer.train(captions, 514)("a black chess knight")[0])


def test_bad_input_gets_one_sentence(trained, tmp_path):
    for call, said in (
        (lambda: trained([]), "empty"),
        (lambda: trained(["a", None]), "Caption 1 is None"),
        (lambda: CLIPTokenizer.train(["a"], vocab_size=500), "514"),
        (lambda: CLIPTokenizer.from_json(trained.to_json(), context_length=1), "context_length is 1"),
        (lambda: CLIPTokenizer.from_json("{}"), "tokenizer.json"),
        (lambda: CLIPTokenizer.from_json(trained.to_json()[:500]), "tokenizer.json"),
        (lambda: CLIPTokenizer.from_openai_merges(tmp_path / "none.gz"), "none.gz"),
    ):
        with pytest.raises(MinclipError, match=said):
            call()


def test_another_kind_of_tokenizer_is_refused(trained):
    from tokenizers import Tokenizer, models

    with pytest.raises(MinclipError, match="CLIP's"):
        CLIPTokenizer.from_json(Tokenizer(models.WordLevel({"a": 0, END: 1}, unk_token="a")).to_str())
    longer = Tokenizer.from_str(trained.to_json())
    longer.add_tokens(["<new>"])  # pooling by argmax would find this one
    with pytest.raises(MinclipError, match="CLIP's"):
        CLIPTokenizer.from_json(longer.to_str())


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"heading\na b c\n"), gzip.compress(b"h\n\xff\xfe")],
    ids=["empty", "no gzip", "three to a line", "no UTF-8"],  # gzip writes the time: no name that two processes share
)
def test_a_damaged_list_of_merges_is_refused(content, tmp_path):
    (tmp_path / "merges.gz").write_bytes(content)
    with pytest.raises(MinclipError, match="merges"):
        CLIPTokenizer.from_openai_merges(tmp_path / "merges.gz")


def test_truncated_captions_add_up_and_padding_is_not_decoded(tokenizer):
    tokenizer = CLIPTokenizer.from_json(tokenizer.to_json(), context_length=8)
    for n in (1, 2):
        rows = tokenizer(["omega", "black chess knight " * 3])
        assert tokenizer.truncated == n
    assert rows.shape == (2, 8) and tokenizer.decode(rows[0]) == "omega"


def test_a_list_of_too_few_merges_is_refused(tmp_path):
    (tmp_path / "merges.gz").write_bytes(gzip.compress(b"heading\na b"))
    with pytest.raises(MinclipError, match="1 merges where 48894 are expected"):
        CLIPTokenizer.from_openai_merges(tmp_path / "merges.gz")


def test_end_of_text_must_be_the_last(tokenizer):
    contents = json.loads(tokenizer.to_json())
    vocabulary = contents["model"]["vocab"]
    vocabulary["<|endoftext|>"], vocabulary["a"] = vocabulary["a"], vocabulary["<|endoftext|>"]
    with pytest.raises(MinclipError, match="not CLIP's"):  # pooling by argmax would find an a
        CLIPTokenizer.from_json(json.dumps(contents))

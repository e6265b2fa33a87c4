"""Any source becomes a stream of pairs that (seed, start) fixes, and bad data gets one clear sentence."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from itertools import islice, pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minclip import CLIP, CLIPConfig, CLIPTokenizer, MinclipError, TrainConfig, fit, preprocess
from minclip.data.decoding import Decoder, PictureCache, decode, run_decoder, shrink
from minclip.data.hub import load_pairs, load_pictures
from minclip.data.images import normalize, resize_and_crop
from minclip.data.sources import _kind, _obvious, captions_of, find_columns, format_in, told

COUNT, RESOLUTION = 12, 16
CAPTIONS = [f"picture number {i}" for i in range(COUNT)]
OPTIONAL_DATA = Path(__file__).parents[2] / "shared" / "data"  # optional data beside the checkout


def picture(number: int, size=(30, 20)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def table(pictures: list[bytes], **columns) -> datasets.Dataset:
    """A data set whose image column holds these bytes as they are, good or bad."""
    features = datasets.Dataset.from_dict(columns).features if columns else {}
    cells = [None if content is None else {"bytes": content, "path": None} for content in pictures]
    rows = {"image": cells, **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(), **features}))


def good(count: int = COUNT) -> datasets.Dataset:
    return table([encode(picture(i)) for i in range(count)], caption=[f"picture number {i}" for i in range(count)])


@pytest.fixture(autouse=True)
def datasets_write_elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    # A stream of Parquet ends with a pause of five seconds, against a fault of Arrow's at interpreter exit.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.01, raising=False)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """The same twelve captioned pictures in every form a source may have."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "pictures").mkdir()
    rows = ["file_name,caption"]
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for i, caption in enumerate(CAPTIONS):
            content = encode(picture(i))
            (folder / "pictures" / f"{i:02d}.png").write_bytes(content)
            rows.append(f"{i:02d}.png,{caption}")
            for suffix, member in ((".png", content), (".txt", caption.encode())):
                entry = tarfile.TarInfo(f"{i:02d}{suffix}")
                entry.size = len(member)
                shard.addfile(entry, io.BytesIO(member))
    (folder / "pictures" / "metadata.csv").write_text("\n".join(rows))
    lines = [{"path": f"pictures/{i:02d}.png", "text": caption} for i, caption in enumerate(CAPTIONS)]
    (folder / "list.csv").write_text("path,text\n" + "\n".join(f"{row['path']},{row['text']}" for row in lines))
    (folder / "list.tsv").write_text("path\ttext\n" + "\n".join(f"{row['path']}\t{row['text']}" for row in lines))
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    good().to_parquet(folder / "table.parquet")
    good().save_to_disk(folder / "saved")
    (folder / "parquets").mkdir()
    good().select(range(5)).to_parquet(folder / "parquets" / "a.parquet")
    good().select(range(5, COUNT)).to_parquet(folder / "parquets" / "b.parquet")
    names = ("pictures", "shard.tar", "list.csv", "list.tsv", "list.jsonl", "table.parquet", "saved", "parquets")
    return {name: folder / name for name in names} | {"pattern": folder / "parquets" / "*.parquet"}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "form",
    ["pictures", "shard.tar", "list.csv", "list.tsv", "list.jsonl", "table.parquet", "saved", "parquets", "pattern"],
)
def test_every_form_of_source_gives_its_pairs(sources, form, streaming):
    pairs = load_pairs(sources[form], resolution=RESOLUTION, streaming=streaming)
    images, captions = next(pairs.batches(COUNT))
    assert images.shape == (COUNT, 3, RESOLUTION, RESOLUTION) and images.dtype == torch.uint8
    assert sorted(captions) == sorted(CAPTIONS) == sorted(pairs.sample_captions())
    assert not pairs.faults.reasons
    for pixels, caption in zip(images, captions):  # the caption is that of the picture: no other comes closer
        shrunk = [resize_and_crop(picture(i), RESOLUTION).astype(float).mean((0, 1)) for i in range(COUNT)]
        distance = np.abs(np.array(shrunk) - pixels.float().mean((1, 2)).numpy()).sum(1)
        assert distance[int(caption.split()[-1])] < 40


def test_a_name_that_exists_is_no_pattern(sources, tmp_path, monkeypatch):
    folder = tmp_path / ("photos [2024]" if os.name == "nt" else "photos [2024] *")  # Windows has no stars in names
    shutil.copytree(sources["pictures"], folder / "pictures")
    shutil.copytree(sources["parquets"], folder / "parquets")
    good().to_parquet(folder / "data[1].parquet")
    good(1).to_parquet(folder / "data1.parquet")
    monkeypatch.chdir(folder)
    for name in ("pictures", "parquets", "data[1].parquet"):
        for source, streaming in ((name, False), (name, True), (folder / name, False)):
            pairs = load_pairs(source, resolution=RESOLUTION, streaming=streaming)
            assert sorted(pairs.sample_captions()) == sorted(CAPTIONS)


PAIRS = {
    "cached": lambda: load_pairs(good(), resolution=RESOLUTION),
    "decoded in turn": lambda: load_pairs(good(), resolution=RESOLUTION, cache_gb=0),
    "streamed": lambda: load_pairs(good().to_iterable_dataset(num_shards=3), resolution=RESOLUTION),
}


@pytest.fixture(scope="module")
def kinds():
    return {name: make() for name, make in PAIRS.items()}


@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, 17),
    start=st.integers(0, 40),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(list(PAIRS)),
)
def test_a_place_in_the_stream_does_not_depend_on_how_it_was_reached(kinds, batch_size, start, seed, kind):
    images, captions = next(kinds[kind].batches(start + 2 * batch_size, seed, 0))
    first, second = islice(kinds[kind].batches(batch_size, seed, start), 2)
    assert torch.equal(torch.cat([first[0], second[0]]), images[start:])
    assert first[1] + second[1] == captions[start:]


def test_cached_decoded_in_turn_and_in_a_worker_are_one_stream():
    cached, in_turn = PAIRS["cached"](), PAIRS["decoded in turn"]()
    in_worker = load_pairs(good(), resolution=RESOLUTION, cache_gb=0, workers=1)
    before = torch.get_rng_state()
    for a, b, c in islice(zip(*(pairs.batches(8, 1, 4) for pairs in (cached, in_turn, in_worker))), 3):
        assert torch.equal(a[0], b[0]) and torch.equal(a[0], c[0])
        assert a[1] == b[1] == c[1]
    assert torch.equal(before, torch.get_rng_state())  # the global generator belongs to training


@pytest.mark.parametrize("kind", list(PAIRS))
def test_processes_take_turns_at_one_stream(kinds, kind):
    whole = [caption for _, captions in islice(kinds[kind].batches(8, 2, 8), 3) for caption in captions]
    for rank in (0, 1):
        turns = islice(kinds[kind].batches(4, 2, 8 + 4 * rank, stride=8), 3)
        assert [captions for _, captions in turns] == [whole[i : i + 4] for i in range(4 * rank, 24, 8)]


def die(image):
    os._exit(3)


def test_a_worker_that_dies_is_an_error_and_not_a_wait():
    decoder = Decoder(die, 16, good(2), "image")
    decoder.table = decoder.table.cast_column("image", datasets.Image(decode=False))
    with pytest.raises(MinclipError, match="decodes pictures died.*fewer workers"):
        next(run_decoder(decoder, [[0, 1]], workers=1))


def test_pictures_inside_an_archive_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("a.png", encode(picture(3)))
    address = f"zip://a.png::{tmp_path / 'pictures.zip'}"
    data = datasets.Dataset.from_dict({"image": [address], "caption": ["three"]})
    assert next(load_pairs(data, resolution=16).batches(1))[1] == ["three"]


def test_seeds_and_epochs_differ():
    pairs = PAIRS["cached"]()
    epochs = [captions for _, captions in islice(pairs.batches(COUNT, seed=0), 3)]
    assert all(sorted(epoch) == sorted(CAPTIONS) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert next(pairs.batches(COUNT, seed=1))[1] != epochs[0]


@pytest.mark.parametrize("kind", list(PAIRS))
def test_an_interrupted_run_resumes_to_the_same_bits(kind, tmp_path):
    config = TrainConfig(images_seen=48, batch_size=8, checkpoint_every=2, log_every=1)
    tokenizer = CLIPTokenizer.train(CAPTIONS, 520, 12)

    def model():
        torch.manual_seed(0)
        return CLIP(CLIPConfig(8, RESOLUTION, 1, 16, 8, 12, tokenizer.vocab_size, 16, 2, 1, vision_heads=2))

    def stop_at_five(record):
        if record["step"] == 5:
            raise ConnectionAbortedError

    whole, broken, resumed = model(), model(), model()
    fit(whole, tokenizer, PAIRS[kind](), config, tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        fit(broken, tokenizer, PAIRS[kind](), config, tmp_path / "broken", on_log=stop_at_five)
    fit(resumed, tokenizer, PAIRS[kind](), config, tmp_path / "broken", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_one_of_several_captions_is_drawn_each_time():
    captions = [["one", "two", "  ", "three"], ["four", "and", "five"], []]
    pairs = load_pairs(table([encode(picture(i)) for i in range(3)], captions=captions), resolution=RESOLUTION)
    assert pairs.faults.reasons == {"row 2": "it has no caption"} and len(pairs) == 2
    drawn = [caption for _, batch in islice(pairs.batches(50), 4) for caption in batch]
    counts = {caption: drawn.count(caption) for caption in drawn}
    assert counts.keys() == {"one", "two", "three", "four", "and", "five"}
    assert min(counts.values()) > 15  # of 200 drawn, each is expected 33 times


def test_class_labels_stand_for_their_names():
    labels = datasets.ClassLabel(names=["tabby_cat", "dog"])
    data = table([encode(picture(i)) for i in range(4)], label=[0, 1, 1, 0]).cast_column("label", labels)
    assert sorted(next(load_pairs(data, resolution=RESOLUTION).batches(4))[1]) == [
        "dog",
        "dog",
        "tabby cat",
        "tabby cat",
    ]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["numpy", "torch", "arrow"])
def test_a_data_set_in_another_format_gives_the_same_pairs(form, streaming):
    labels = datasets.ClassLabel(names=["tabby_cat", "dog"])
    data = table([encode(picture(i)) for i in range(4)], label=[0, 1, 1, 0]).cast_column("label", labels)
    data = data.to_iterable_dataset() if streaming else data
    (images, captions), (same, words) = (
        next(load_pairs(d, resolution=16).batches(4)) for d in (data, data.with_format(form))
    )
    assert torch.equal(images, same) and captions == words


def test_a_stream_after_map_gives_its_pairs():
    mapped = good().to_iterable_dataset().map(lambda row: {"caption": row["caption"].upper()})
    images, captions = next(load_pairs(mapped, resolution=RESOLUTION).batches(COUNT))
    expected, words = next(load_pairs(good().to_iterable_dataset(), resolution=RESOLUTION).batches(COUNT))
    assert torch.equal(images, expected) and captions == [word.upper() for word in words]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_crops_gathered_from_the_cache_are_slices_of_the_pictures(data):
    sizes = data.draw(st.lists(st.tuples(st.integers(5, 9), st.integers(5, 12)), min_size=1, max_size=6))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    places = np.array(data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=8)))
    chance = rng.random((len(places), 2))
    crops = PictureCache(pictures, "cpu").crops(places, chance, resolution=5)
    for crop, place, (down, across) in zip(crops, places, chance):
        height, width = sizes[place]
        top, left = int(down * (height - 4)), int(across * (width - 4))
        assert np.array_equal(crop.numpy(), pictures[place][top : top + 5, left : left + 5].transpose(2, 0, 1))


def test_crops_reach_every_corner():
    pairs = load_pairs(table([encode(picture(0, (40, 40)))], caption=["one"]), resolution=14)
    whole = torch.tensor(shrink(picture(0, (40, 40)), 16)).permute(2, 0, 1)
    crops = next(pairs.batches(300))[0]
    corners = [whole[:, top : top + 14, left : left + 14] for top in range(3) for left in range(3)]
    found = torch.stack([(crops == corner).flatten(1).all(1) for corner in corners])
    assert found.any(1).all() and found.any(0).all()


# What a picture of a red left half and a blue right half becomes, in every way of storing it.
def halves(mode: str, left, right, size=(40, 20)) -> Image.Image:
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


RED, BLUE = (255, 0, 0), (0, 0, 255)


def turned() -> bytes:
    """Stored on its side, with an EXIF tag that says how to put it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    return encode(halves("RGB", RED, BLUE).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


ODD_PICTURES = {
    "grey": (encode(halves("L", 200, 20)), (200,) * 3, (20,) * 3),
    "grey with alpha": (encode(halves("LA", (0, 255), (0, 0))), (0,) * 3, (255,) * 3),
    "palette": (encode(halves("RGB", RED, BLUE).quantize(4)), RED, BLUE),
    "palette, one entry transparent": (encode(halves("P", 1, 0), transparency=0), None, (255,) * 3),
    "alpha": (encode(halves("RGBA", (*RED, 255), (*BLUE, 0))), RED, (255,) * 3),
    "CMYK": (encode(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG", quality=95), RED, BLUE),
    "turned by EXIF": (turned(), RED, BLUE),
    "16 bits": (encode(halves("I;16", 200 * 257, 20 * 257)), (200,) * 3, (20,) * 3),
    "float": (encode(halves("F", 200.0, 20.0), "TIFF"), (200,) * 3, (20,) * 3),
    "black and white": (encode(halves("1", 1, 0)), (255,) * 3, (0,) * 3),
    "animated": (
        encode(halves("RGB", RED, BLUE), "GIF", save_all=True, append_images=[halves("RGB", BLUE, RED)]), RED, BLUE,
    ),
    "WebP": (encode(halves("RGB", RED, BLUE), "WEBP", lossless=True), RED, BLUE),
    "YCbCr": (encode(halves("RGB", RED, BLUE).convert("YCbCr"), "JPEG", quality=95), RED, BLUE),
    "one pixel": (encode(Image.new("RGB", (1, 1), RED)), RED, RED),
    "a thread": (encode(halves("RGB", RED, BLUE, (20_000, 1))), RED, BLUE),
    "enormous": (encode(halves("L", 200, 20, (9000, 9000)), "JPEG"), (200,) * 3, (20,) * 3),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ODD_PICTURES))
def test_odd_pictures_come_out_upright_and_in_colour(kind):
    content, left, right = ODD_PICTURES[kind]
    pixels = decode(content, lambda image: shrink(image, 18), 18)
    height, width, channels = pixels.shape
    assert (channels, pixels.dtype, min(height, width)) == (3, np.uint8, 18) and max(height, width) <= 36
    for colour, column in ((left, 1), (right, -2)):
        if colour is not None:
            assert np.abs(pixels[:, column].astype(int) - colour).max() <= 12
    for streaming in (False, True):
        data = table([content], caption=["odd"])
        data = data.to_iterable_dataset() if streaming else data
        assert next(load_pairs(data, resolution=16).batches(2))[0].shape == (2, 3, 16, 16)


def test_a_picture_beyond_all_measure_is_skipped_by_name():
    monster = encode(Image.new("1", (14_000, 14_000)))  # 196 million pixels in a few kilobytes
    pairs = load_pairs(table([monster, encode(picture(1))], caption=["a", "b"]), resolution=16)
    assert len(pairs) == 1 and "DecompressionBombError" in pairs.faults.reasons["row 0"]


BAD = {b"": "it is empty", b"not a picture at all": "known format", encode(picture(0))[:90]: "", None: "no picture"}


@pytest.mark.parametrize("kind", ["cached", "decoded in turn", "streamed"])
def test_corrupt_pictures_are_skipped_counted_and_named(kind, caplog):
    pictures = [encode(picture(i)) for i in range(COUNT)] + list(BAD)
    data = table(pictures, caption=[*CAPTIONS, "bad 0", "bad 1", "bad 2", "bad 3"])
    data = data.to_iterable_dataset() if kind == "streamed" else data
    pairs = load_pairs(data, resolution=RESOLUTION, cache_gb=4 * (kind == "cached"))
    for images, captions in islice(pairs.batches(8), 8):
        assert images.shape[0] == 8 and set(captions) <= set(CAPTIONS)
    assert len(pairs.faults.reasons) == 4 and all(name in caplog.text for name in pairs.faults.reasons)
    assert pairs.faults.failed / pairs.faults.tried == (4 / 16 if kind == "cached" else pytest.approx(4 / 16, abs=0.1))
    for name, (content, reason) in zip(sorted(pairs.faults.reasons), BAD.items()):
        assert reason in pairs.faults.reasons[name], content


@pytest.mark.parametrize("kind", ["cached", "decoded in turn", "streamed"])
def test_a_mostly_corrupt_source_ends_the_run(kind):
    pictures = [encode(picture(i)) if i % 3 == 0 else b"broken" for i in range(30)]
    data = table(pictures, caption=[f"number {i}" for i in range(30)])
    data = data.to_iterable_dataset() if kind == "streamed" else data
    with pytest.raises(MinclipError, match="cannot be used .*not a picture in a known format"):
        for _ in islice(load_pairs(data, resolution=16, cache_gb=4 * (kind == "cached")).batches(16), 50):
            pass


def test_columns_that_are_not_obvious_are_listed():
    data = table([encode(picture(0))], english=["a"], german=["b"], size=[3])
    with pytest.raises(MinclipError, match=r"english \(text\), german \(text\), size \(number\).*caption_column"):
        load_pairs(data, resolution=16)
    with pytest.raises(MinclipError, match="no column 'french'"):
        load_pairs(data, resolution=16, caption_column="french")
    with pytest.raises(MinclipError, match="'size' of the data set holds numbers, not pictures"):
        load_pairs(data, resolution=16, image_column="size", caption_column="german")
    assert next(load_pairs(data, resolution=16, caption_column="german").batches(1))[1] == ["b"]
    assert next(load_pairs(data.select_columns(["image", "german"]), resolution=16).batches(1))[1] == ["b"]
    with pytest.raises(MinclipError, match="no column that obviously holds pictures"):
        load_pairs(data.select_columns(["english", "size"]), resolution=16)


def test_sources_that_cannot_be_opened_get_one_sentence(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.parquet").write_bytes(sources["table.parquet"].read_bytes()[:500])
    (tmp_path / "notes.docx").write_bytes(b"")
    for source, words in {
        "missing.parquet": "no file or folder missing.parquet",
        "missing": "of the form owner/name",
        "owner/nothing": "name on the Hugging Face hub 'owner/nothing' cannot be opened",
        tmp_path / "empty": "folder .* cannot be opened",
        tmp_path / "torn.parquet": "file .* cannot be opened",
        tmp_path / "notes.docx": "suffix '.docx'; a file of pictures is one of .parquet",
        good().select([]): "holds no rows",
    }.items():
        with pytest.raises(MinclipError, match=words):
            load_pairs(source, resolution=16)
    with pytest.raises(MinclipError, match="split 'test'.*train"):
        load_pairs(sources["pictures"], "test", resolution=16)
    with pytest.raises(MinclipError, match="no split 'test'; it has train"):
        load_pairs(datasets.DatasetDict(train=good()), "test", resolution=16)
    assert load_pictures(sources["table.parquet"], "test", resolution=16).images.shape == (COUNT, 3, 16, 16)


def test_a_stream_that_breaks_off_gets_one_sentence(sources, tmp_path):
    shard = sources["shard.tar"].read_bytes()
    for name, content in {"empty.csv": b"", "torn.tar": shard[: shard.rindex(b"PNG") + 9]}.items():
        (tmp_path / name).write_bytes(content)
        for read in (lambda pairs: pairs.sample_captions(), lambda pairs: next(pairs.batches(2))):
            with pytest.raises(MinclipError, match=f"{name} cannot be read.*whole"):
                read(load_pairs(tmp_path / name, resolution=16, streaming=True))


def test_what_no_pairs_can_be_read_from_gets_one_sentence():
    with pytest.raises(MinclipError, match="'caption' of the data set cannot hold both"):
        load_pairs(good(), image_column="caption", caption_column="caption", resolution=16)
    with pytest.raises(MinclipError, match="has a transform.*with map"):
        load_pairs(good().with_transform(dict), resolution=16)
    with pytest.raises(MinclipError, match="is a stream.*without streaming"):
        load_pictures(good().to_iterable_dataset(), resolution=16)
    with pytest.raises(MinclipError, match="workers is -1"):
        next(load_pairs(good(), resolution=16, cache_gb=0, workers=-1).batches(2))


def test_addresses_are_not_fetched():
    for address in ("https://example.org/a.jpg", "zip://a.jpg::https://example.org/a.zip", "ftp://example.org/a.jpg"):
        data = datasets.Dataset.from_dict({"image": [address] * 3, "caption": list("abc")})
        with pytest.raises(MinclipError, match="3 of the first 3 .*it is an address"):
            load_pairs(data, resolution=16)


def test_evaluation_pictures_are_those_of_preprocess():
    images = [picture(i, size) for i, size in enumerate([(30, 20), (20, 33), (16, 16)])]
    jpegs = [encode(image, "JPEG") for image in images]
    config = CLIPConfig(8, RESOLUTION, 1, 16, 8, 12, 520, 16, 2, 1, vision_heads=2)
    loaded = load_pictures(table(jpegs, caption=["a", "b", "c"]), resolution=RESOLUTION)
    expected = preprocess([Image.open(io.BytesIO(jpeg)) for jpeg in jpegs], config)
    assert torch.equal(normalize(loaded.images), expected) and loaded.texts == ["a", "b", "c"]


def test_labels_by_name_and_by_number():
    pictures = [encode(picture(i)) for i in range(4)]
    by_name = load_pictures(table(pictures, caption=["Cat", "dog", "bird", "cat"]), resolution=16)
    assert [x.tolist() for x in by_name.labels(["dog", "cat"])] == [[0, 1, 3], [1, 0, 1]]
    with pytest.raises(MinclipError, match="a caption: 'Cat'; a class: 'horse'"):
        by_name.labels(["horse"])
    numbered = load_pictures(table(pictures, label=[1, 0, 2, 1]), resolution=16)
    assert numbered.labels(["a cat", "a dog", "a bird"])[1].tolist() == [1, 0, 2, 1]
    with pytest.raises(MinclipError, match="has 3 labels, but 2 classes are named"):
        numbered.labels(["a cat", "a dog"])
    named = datasets.ClassLabel(names=["big_dog", "cat", "bird"])
    with_names = load_pictures(table(pictures, label=[1, 0, 2, 1]).cast_column("label", named), resolution=16)
    assert [x.tolist() for x in with_names.labels(["cat", "big dog"])] == [[0, 1, 3], [0, 1, 0]]  # known names: by name
    assert with_names.labels(["hound", "puss", "fowl"])[1].tolist() == [1, 0, 2, 1]  # new names: by order


def test_pictures_without_a_label_are_left_out_and_classes_without_a_picture_may_be():
    pictures = [encode(picture(i)) for i in range(3)]
    for labels, places in (([0, None, 0], [0, 2]), ([None, 0, -1], [1])):
        loaded = load_pictures(table(pictures, label=labels), resolution=16)
        assert [x.tolist() for x in loaded.labels(["a cat", "a dog"])] == [places, [0] * len(places)]
    with pytest.raises(MinclipError, match="a caption: None"):
        load_pictures(table(pictures, label=[-1, None, -1]).select([1]), resolution=16).labels(["a cat"])


def test_class_names_match_as_folders_spell_them_and_a_mixture_keeps_its_order():
    labels = datasets.ClassLabel(names=["capital_a", "the_knight"])
    data = table([encode(picture(i)) for i in range(3)], label=[0, 1, 1]).cast_column("label", labels)
    pictures = load_pictures(data, resolution=16)
    for names in (["the_knight", "capital_a"], ["The knight", "capital a"], ["the knight", "capital_a"]):
        assert pictures.labels(names)[1].tolist() == [1, 0, 0]
    assert pictures.labels(["capital a", "black chess knight"])[1].tolist() == [0, 1, 1]  # one renamed, in order
    with pytest.raises(MinclipError, match=r"'capital a' is label 0 .* number 1 .*\(capital_a, the_knight\)"):
        pictures.labels(["black chess knight", "capital_a"])
    in_words = load_pictures(table([encode(picture(0))], caption=["the_knight"]), resolution=16)
    assert in_words.labels(["capital_a", "the_knight"])[1].tolist() == [1]


@pytest.mark.skipif(not OPTIONAL_DATA.is_dir(), reason="the optional data beside the checkout is absent")
def test_real_pictures_load_whole():
    drawings = load_pairs(OPTIONAL_DATA / "emoji" / "fxemoji.parquet", resolution=32)
    assert len(drawings) == 863 and not drawings.faults.reasons
    photographs = load_pairs(OPTIONAL_DATA / "coco-open" / "train.parquet", resolution=32)
    drawn = {caption for _, captions in islice(photographs.batches(26), 10) for caption in captions}
    assert len(photographs) == 26 and len(drawn) > 5 * 26 / 2 and photographs.cache.pixels.float().std() > 30
    assert all(a != b for a, b in pairwise(sorted(drawn)))


def test_a_picture_without_a_label_has_no_caption():
    names = ("cat", "big_dog")
    assert [captions_of(k, names) for k in (-1, 0, 1, 2)] == [[], ["cat"], ["big dog"], []]
    assert captions_of(None, names) == captions_of(["", " "], None) == captions_of(3, None) == []


def test_of_columns_alike_the_first_and_of_errors_the_first_cause():
    assert _obvious(["Caption", "caption", "note"], ("caption",)) == "Caption"
    complaint = "It failed. OSError: the cable. Look there."
    with pytest.raises(MinclipError, match=complaint), told("It failed", "Look there"):
        raise RuntimeError("something went wrong") from OSError("the cable")


def test_a_list_of_numbers_is_no_label():
    assert _kind(datasets.Value("int64")) == "number" != _kind(datasets.Sequence(datasets.Value("int64")))


def test_the_words_beside_a_picture_are_not_the_format(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a\n")
    assert format_in(tmp_path) == "imagefolder"


def test_numbers_are_no_captions():
    features = {"image": datasets.Image(), "size": datasets.Value("int64")}
    with pytest.raises(MinclipError, match="obviously holds captions"):
        find_columns(features, "it", None, None, with_numbers=False)
    assert find_columns(features, "it", None, None, with_numbers=True).text == "size"

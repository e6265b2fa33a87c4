"""Pictures of every kind become model input, as transformers' image processor for CLIP makes it."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from minclip import MinclipError, preprocess
from minclip.data.images import MEAN, STD, normalize, resize_and_crop, to_rgb

DATA = Path(__file__).parents[2] / "shared/data"


@pytest.fixture(scope="module")
def processor():
    """transformers' own, through PIL."""
    try:
        from transformers import CLIPImageProcessorPil
    except ImportError:
        try:  # before version 5 it had no other
            from transformers import CLIPImageProcessor as CLIPImageProcessorPil
        except ImportError as error:
            pytest.skip(f"transformers does not import here: {error}")
    return CLIPImageProcessorPil()


def grey_levels(model_input: torch.Tensor) -> torch.Tensor:
    """(B, 3, R, R) as the model reads it -> pixels from 0 to 255."""
    return (model_input * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def assert_within_one_grey_level(processor, image: Image.Image, resolution: int) -> None:
    theirs = processor(
        images=image, return_tensors="pt", size={"shortest_edge": resolution},
        crop_size={"height": resolution, "width": resolution},
    )["pixel_values"]  # fmt: skip
    ours = preprocess(image, SimpleNamespace(image_resolution=resolution))
    assert ours.shape == theirs.shape
    difference = (grey_levels(ours) - grey_levels(theirs)).abs().max()
    assert difference <= 1, f"{image.mode} {image.size} at {resolution}: {difference:.2f} grey levels"


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.merge(mode, [Image.fromarray(pixels[:, :, band]) for band in range(bands)])


@pytest.mark.parametrize("resolution", [32, 224])
def test_it_agrees_with_transformers_on_pictures_of_any_size_and_mode(processor, resolution):
    for seed, size in enumerate([(1, 1), (7, 300), (640, 427), (427, 640), (224, 224), (33, 32), (90, 2), (1000, 17)]):
        assert_within_one_grey_level(processor, noise(*size, seed=seed), resolution)
    for mode in ("L", "LA", "RGBA", "CMYK"):
        assert_within_one_grey_level(processor, noise(75, 50, mode), resolution)
    assert_within_one_grey_level(processor, noise(75, 50).quantize(16), resolution)


@pytest.mark.parametrize("folder", ["coco-open", "emoji"])
def test_it_agrees_with_transformers_on_real_pictures(processor, folder):
    files = sorted((DATA / folder).glob("*.parquet"))
    if not files:
        pytest.skip(f"optional data beside the checkout is absent: {folder}")
    import pyarrow.parquet

    for file in files:
        group = pyarrow.parquet.ParquetFile(file)
        rows = next(group.iter_batches(batch_size=12, columns=["image"])).to_pylist()
        for row in rows:
            image = Image.open(io.BytesIO(row["image"]["bytes"]))
            assert_within_one_grey_level(processor, image, 224)
            assert_within_one_grey_level(processor, image, 32)


CONFIG = SimpleNamespace(image_resolution=16)


def test_lists_arrays_and_tensors_of_the_same_pictures_agree():
    images = [noise(16, 16, seed=seed) for seed in range(3)]
    arrays = np.stack([np.asarray(image) for image in images])
    expected = preprocess(images, CONFIG)
    assert expected.shape == (3, 3, 16, 16)
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for same in (arrays, list(arrays), pixels, pixels / 255):
        torch.testing.assert_close(preprocess(same, CONFIG), expected)
    torch.testing.assert_close(expected, normalize(pixels))
    assert preprocess(images[0], CONFIG).shape == preprocess(arrays[0], CONFIG).shape == (1, 3, 16, 16)
    assert preprocess(arrays[0][:, :, 0], CONFIG).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("size", [(40, 23), (23, 40), (12, 16), (9, 30)])
def test_a_tensor_is_resized_and_cropped_as_the_picture_it_was(size):
    # PIL rounds to whole grey levels after each of its two passes, and a tensor is not rounded at all.
    image = noise(5, 5).resize(size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    expected = grey_levels(preprocess(image, CONFIG))
    for tensor in (pixels, pixels / 255):
        assert (grey_levels(preprocess(tensor, CONFIG)) - expected).abs().max() <= 2


def test_the_centre_is_kept_and_the_ends_are_cut():
    image = Image.new("RGB", (48, 16), "red")
    image.paste("blue", (16, 0, 32, 16))
    assert (resize_and_crop(image, 16)[:, 2:-2] == (0, 0, 255)).all()


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (16, 8), "white")
    image.paste("black", (0, 0, 8, 8))  # the left half
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    upright = to_rgb(Image.open(file))
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2)) == (0, 0, 0)
    assert upright.getpixel((4, 14)) == (255, 255, 255)


def test_transparency_lies_on_white():
    assert to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("LA", (2, 2), (0, 128))).getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped():
    grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert np.asarray(to_rgb(grey))[0, :, 0].tolist() == [0, 128, 255]


def test_pictures_of_floats_are_scaled_by_their_largest():
    levels = np.array([[0.0, 0.2, 1.0]], dtype=np.float32)
    for largest in (1, 255, 65535):
        assert np.asarray(to_rgb(Image.fromarray(levels * largest)))[0, :, 0].tolist() == [0, 51, 255]
    assert np.asarray(to_rgb(Image.fromarray(levels.astype(np.int32))))[0, :, 0].tolist() == [0, 0, 1]  # of 255


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_precision_become_what_a_model_reads(dtype):
    for side in (16, 20):
        images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)
        assert torch.equal(preprocess(images, CONFIG), preprocess(images.float(), CONFIG))


def test_a_thread_and_a_single_pixel_fit_too():
    for size in ((1, 5000), (5000, 1), (1, 1)):
        assert preprocess(noise(*size), CONFIG).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([], "empty list"),
        (torch.zeros(3, 16, 16), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 0, 16), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "int64"),
        (torch.full((1, 3, 16, 16), 255.0), "Divide by 255"),
        (torch.full((1, 3, 16, 16), float("nan")), r"NaN or infinite pixels in picture\(s\) \[0\] of 1"),
        (np.zeros((16, 16, 3)), "float64"),
        (np.zeros((16, 16, 2), dtype=np.uint8), r"\(16, 16, 2\)"),
        (["cat.jpg"], "Picture 0"),
        ([np.zeros((0, 4, 3), dtype=np.uint8)], "empty"),
        (Image.new("RGB", (0, 4)), "empty"),
        (Image.new("F", (0, 4)), "0 x 4 pixels is empty"),
        (Image.new("F", (4, 4), float("nan")), "NaN or infinite"),
        (Image.new("F", (4, 4), float("inf")), "NaN or infinite"),
    ],
)  # fmt: skip
def test_bad_pictures_get_one_sentence(images, said):
    with pytest.raises(MinclipError, match=said):
        preprocess(images, CONFIG)


def test_the_constants_are_openais():
    assert MEAN == (0.48145466, 0.4578275, 0.40821073) and STD == (0.26862954, 0.26130258, 0.27577711)


def test_whole_numbers_of_32_bits_are_scaled_and_what_is_below_0_is_black():
    whole = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.int32))
    assert np.asarray(to_rgb(whole))[0, :, 0].tolist() == [0, 128, 255]
    below = Image.fromarray(np.array([[-50.0, 0, 255]], dtype=np.float32))
    assert np.asarray(to_rgb(below))[0, :, 0].tolist() == [0, 0, 255]


def test_negative_floats_are_refused_none_are_none_and_arrays_may_have_alpha():
    with pytest.raises(MinclipError, match="expected \\[0, 1\\]"):
        preprocess(torch.full((1, 3, 16, 16), -0.5), CONFIG)
    assert preprocess(torch.zeros(0, 3, 16, 16), CONFIG).shape == (0, 3, 16, 16)
    clear = preprocess(np.zeros((16, 16, 4), np.uint8), CONFIG)
    torch.testing.assert_close(clear, preprocess(np.full((16, 16, 3), 255, np.uint8), CONFIG))


def test_a_thread_is_never_resized_to_a_gigantic_strip(monkeypatch):
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *how, **more: sizes.append(size) or resize(self, size, *how, **more)
    )
    for size in ((1, 5000), (5000, 1)):
        assert resize_and_crop(noise(*size), 16).shape == (16, 16, 3)
    assert max(width * height for width, height in sizes) <= 64 * 16**2

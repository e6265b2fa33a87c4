"""Pictures in any form become what an image encoder reads.

The transform of OpenAI's `clip.load`: resize the shorter side bicubically, crop the centre, scale to
[0, 1], subtract the mean and divide by the deviation of WebImageText. A model trained here uses the
same constants, so that any picture suits any model.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps

from ..errors import MinclipError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 in [0, 255] or float in [0, 1], (B, 3, H, W) -> float, zero mean and unit deviation."""
    if images.dtype == torch.uint8:
        images = images.float() / 255
    # Channel by channel, with plain numbers: a tensor of them would have to be sent to the GPU each time.
    return torch.stack([(images[:, c] - MEAN[c]) / STD[c] for c in range(3)], dim=1)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on the device, for which neither the GPU stops work nor the caller waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture as upright RGB: EXIF turned, transparency laid on white, 16 bits to 8.

    Floats are taken to be in [0, 1] where none is larger. Raises MinclipError where a picture is empty, or
    holds NaN or infinity.
    """
    if 0 in image.size:
        raise MinclipError(f"A picture of {image.width} x {image.height} pixels is empty; drop it.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # PIL clips 16-bit grey to 255; we scale it
        pixels = np.asarray(image, dtype=np.float32)
        if not np.isfinite(pixels).all():
            raise MinclipError("A picture of floats holds NaN or infinite pixels; mend or drop it.")
        largest = 65535.0 if pixels.max() > 255 else 255.0
        if image.mode == "F" and pixels.max() <= 1:
            largest = 1.0
        image = Image.fromarray((pixels.clip(0, largest) * (255 / largest)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, resolution: int) -> np.ndarray:
    """PIL picture -> (resolution, resolution, 3) uint8: shorter side resized, centre cropped."""
    image = to_rgb(image)
    width, height = image.size
    if max(width, height) > 64 * min(width, height):  # a thread would resize to a gigantic strip
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC)
        return np.asarray(image)
    width, height = _resized(width, height, resolution)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return np.asarray(image.crop((left, top, left + resolution, top + resolution)))


def _resized(width: int, height: int, resolution: int) -> tuple[int, int]:
    """The size at which the shorter side is `resolution`; the longer is rounded down, as transformers does."""
    shorter = min(width, height)
    return resolution * width // shorter, resolution * height // shorter


def preprocess(images: "Image.Image | np.ndarray | torch.Tensor | Sequence", config) -> torch.Tensor:
    """Pictures -> model input, (B, 3, R, R) float32 with R = `config.image_resolution`.

    `images` is one PIL picture or a list of them (any mode, size or orientation); or uint8 arrays,
    (H, W), (H, W, 3) or (B, H, W, 3); or a tensor (B, 3, H, W), float of any precision in [0, 1] or
    uint8, which stays on its device.

    Raises MinclipError for another shape or type, an empty list, values outside [0, 1], or NaN.
    """
    resolution = config.image_resolution
    if isinstance(images, torch.Tensor):
        return normalize(_checked(images, resolution))
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if isinstance(images, Image.Image | np.ndarray):
        images = [images]
    if not images:
        raise MinclipError("preprocess got an empty list of pictures; give it at least one.")
    rows = np.stack([resize_and_crop(_to_pil(image, i), resolution) for i, image in enumerate(images)])
    return normalize(rearrange(torch.from_numpy(rows), "b h w c -> b c h w"))


def _to_pil(image, position: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise MinclipError(
            f"Picture {position} is an array of {array.dtype} with shape {array.shape}; expected uint8 "
            "with shape (H, W) or (H, W, 3). Scale floats to 0-255 and call .astype('uint8')."
        )
    return Image.fromarray(array)


def _checked(images: torch.Tensor, resolution: int) -> torch.Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise MinclipError(f"Pictures have shape {tuple(images.shape)}; expected (B, 3, H, W).")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise MinclipError(f"Pictures are {images.dtype}; expected uint8, or floats in [0, 1].")
        if not torch.isfinite(images).all():
            bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
            raise MinclipError(f"NaN or infinite pixels in picture(s) {bad[:5]} of {len(images)}; mend or drop them.")
        if images.numel() and (images.min() < 0 or images.max() > 1):
            raise MinclipError(
                f"Float pixels run from {images.min():.3g} to {images.max():.3g}; expected [0, 1]. "
                "Divide by 255, or pass the pictures before normalisation."
            )
        images = images.float()
    height, width = images.shape[2:]
    if (height, width) != (resolution, resolution):
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        width, height = _resized(width, height, resolution)
        images = F.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
        left, top = (width - resolution) // 2, (height - resolution) // 2
        images = images[:, :, top : top + resolution, left : left + resolution]
    return images

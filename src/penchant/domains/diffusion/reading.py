"""Pictures as a model of pixels reads them: brought to its size and its numbers of channels. No file is opened here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def pixels_of(image: Image, channels: int, high: int, wide: int) -> Float[Tensor, "channels high wide"]:
    """A picture in float32, [−1, 1]. It is scaled until it fills the size (Lanczos) and cropped in the middle; what is transparent
    becomes white; one channel is its luminance."""
    import numpy as np
    from PIL import Image as Pillow
    from PIL import ImageOps

    if image.has_transparency_data:
        image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = ImageOps.fit(image.convert("RGB" if channels == 3 else "L"), (wide, high), Pillow.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).view(high, wide, channels).permute(2, 0, 1)
    return (pixels.float() / 127.5 - 1).contiguous()


def image_of(pixels: Float[Tensor, "channels high wide"]) -> Image:
    """The picture that these pixels in [−1, 1] are, of one channel or three."""
    from PIL import Image as Pillow

    levels = ((pixels.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Pillow.fromarray(levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).contiguous().numpy())

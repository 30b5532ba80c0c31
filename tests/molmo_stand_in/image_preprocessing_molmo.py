"""The stand-in's image processor: a crop of the whole image, then one or two of its parts, by tensorflow's resize."""

import numpy as np
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs


class MolmoImagesKwargs(ImagesKwargs, total=False):
    image_patch_size: int | None
    crop_size: int | None


def resize(image, side):
    """(H, W, 3) uint8 -> (side, side, 3) float32 of 0 to 1."""
    import tensorflow as tf

    image = tf.image.convert_image_dtype(tf.constant(image), dtype=tf.float32)
    image = tf.image.resize(image, [side, side], method=tf.image.ResizeMethod.BILINEAR, antialias=True)
    return tf.clip_by_value(image, 0.0, 1.0).numpy()


class MolmoImageProcessor(BaseImageProcessor):
    def __init__(self, image_patch_size: int = 14, crop_size: int = 28, **kwargs):
        super().__init__(**kwargs)
        self.image_patch_size = image_patch_size
        self.crop_size = crop_size

    def crops(self, image, image_patch_size, crop_size):
        """(T, N, D) patches: the whole image, and its halves where it is wider than high, or else once more."""
        width = image.shape[1]
        parts = [image[:, : width // 2], image[:, width // 2 :]] if width > image.shape[0] else [image]
        n, patch = crop_size // image_patch_size, image_patch_size
        made = [resize(np.ascontiguousarray(part), crop_size) * 2 - 1 for part in (image, *parts)]
        cut = [c.reshape(n, patch, n, patch, 3).swapaxes(1, 2).reshape(n * n, -1) for c in made]
        return np.stack(cut)

    def multimodal_preprocess(
        self, images, tokens, image_patch_token_id, image_start_token_id, image_end_token_id, **kwargs
    ):
        patches = self.crops(images[0], kwargs["image_patch_size"], kwargs["crop_size"])
        t, n = patches.shape[:2]
        visual = np.full((t, n + 2), image_patch_token_id)
        visual[:, 0], visual[:, -1] = image_start_token_id, image_end_token_id
        places = np.arange(t)[:, None] * (n + 2) + 1 + np.arange(n)
        places[-1, -1] = -100  # a patch that no token stands for
        return {
            "input_ids": np.concatenate([visual.ravel(), tokens]),
            "images": patches,
            "image_input_idx": places,
            "image_masks": np.full((t, n), 0.75, np.float32),
        }


MolmoImageProcessor.register_for_auto_class()

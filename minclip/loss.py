"""The contrastive loss of CLIP (paper, Figure 3): find each picture's caption among all of the batch's,
and each caption's picture. Notebook 04 derives it line by line."""

import torch
import torch.nn.functional as F


def contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric cross-entropy over the N x N similarities of N matching pairs.

    image_features, text_features: (N, E), unit rows; row i of one belongs to row i of the other
    logit_scale: scalar, 1 / temperature
    Returns a scalar: the mean of both directions, ln N when the features say nothing.
    """
    with torch.autocast(image_features.device.type, enabled=False):  # exponentials need float32
        image_features, text_features = (
            f.float() if f.dtype in (torch.bfloat16, torch.float16) else f for f in (image_features, text_features)
        )
        logits = logit_scale * image_features @ text_features.T  # (N, N): pictures down, captions across
        labels = torch.arange(len(logits), device=logits.device)  # the diagonal
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

"""What CLIP is compared with: an image encoder built as its own under a linear head, trained on labels.

A classifier of the benchmark's K classes and of nothing else (paper, section 3.3). Optimiser, schedule
and learning rate are those that `fit` uses for CLIP; the loss is cross-entropy with the labels.
Notebook 10.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

from .data.images import normalize
from .encoders import ModifiedResNet
from .errors import MinclipError
from .train import TrainConfig, learning_rate, make_optimizer, set_learning_rate
from .zeroshot import CHUNK, evaluating


class SupervisedClassifier(nn.Module):
    """A ResNet as CLIP has, here of one block a stage: (B, 3, R, R) -> (B, K) logits."""

    def __init__(self, classes: int, width: int = 16, layers: tuple[int, ...] = (1, 1, 1, 1), resolution: int = 32):
        super().__init__()
        embed_dim = 256
        self.visual = ModifiedResNet(layers, width, heads=4, image_resolution=resolution, embed_dim=embed_dim)
        self.head = nn.Linear(embed_dim, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.visual(images))


def fit_classifier(
    model: SupervisedClassifier, images: torch.Tensor, labels: torch.Tensor, config: TrainConfig
) -> float:
    """Train in place, on the model's device, on images (N, 3, R, R), uint8 or float in [0, 1], with labels (N,);
    returns the last loss.

    The pictures go round, reshuffled each time, until `config.images_seen` have been seen.

    Raises MinclipError for no pictures, or as many labels as there are not pictures.
    """
    if len(images) == 0 or labels.shape != (len(images),):
        raise MinclipError(f"There are {len(images)} pictures and labels of shape {tuple(labels.shape)}; give as many.")
    device = model.head.weight.device
    images, labels = images.to(device), labels.to(device)
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    rounds = -(-config.steps * config.batch_size // len(images))
    order = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(rounds)])
    model.train()
    for step in tqdm(range(config.steps), desc="supervised", unit="step", leave=False):
        rows = order[step * config.batch_size : (step + 1) * config.batch_size]
        set_learning_rate(optimizer, learning_rate(step, config))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(normalize(images[rows])), labels[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
    model.eval()
    return loss.item()


@torch.no_grad()
def classify(model: SupervisedClassifier, images: torch.Tensor) -> torch.Tensor:
    """(N, 3, R, R), uint8 or float in [0, 1] -> (N, K) logits on the model's device, in evaluation mode, in chunks."""
    with evaluating(model):
        return torch.cat([model(normalize(chunk.to(model.head.weight.device))) for chunk in images.split(CHUNK)])

"""The contrastive loss of CLIP (paper, Figure 3): find each picture's caption among all of the batch's,
and each caption's picture. Notebook 04 derives it line by line.

Three forms of one number: `contrastive_loss` reads like the formula and holds all N x N similarities;
`tiled_contrastive_loss` holds a strip of them at a time, so that N may be a million;
`distributed_contrastive_loss` lets several processes each compute the rows of their own pictures.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from .errors import MinclipError


def contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric cross-entropy over the N x N similarities of N matching pairs.

    image_features, text_features: (N, E), unit rows; row i of one belongs to row i of the other
    logit_scale: scalar, 1 / temperature
    Returns a scalar: the mean of both directions, ln N when the features say nothing. Call its `backward()` outside of
    any autocast, as PyTorch wants it: within, the gradients would be half precision's.
    """
    with torch.autocast(image_features.device.type, enabled=False):  # exponentials need float32
        image_features, text_features = at_least_float32(image_features, text_features)
        logits = logit_scale * image_features @ text_features.T  # (N, N): pictures down, captions across
        labels = torch.arange(len(logits), device=logits.device)  # the diagonal
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def tiled_contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor, tile: int = 2048
) -> torch.Tensor:
    """`contrastive_loss`, value and gradients, in O(N x tile) memory: no more than `tile` rows of the
    N x N similarities exist at a time, at the price of computing them again in the backward pass.

    A cross-entropy is a log-sum-exp less the logit of the match, and only the log-sum-exps need the
    whole matrix. Everything else, the gradient of `logit_scale` included, is left to autograd.
    Raises MinclipError when the two sides do not pair up, or `tile` is below 1.
    """
    check_pairs(image_features, text_features, tile)
    with torch.autocast(image_features.device.type, enabled=False):
        image_features, text_features = at_least_float32(image_features, text_features)
        scaled = logit_scale * image_features
        over_captions, over_images = TiledLogSumExp.apply(scaled, text_features, tile)  # (N,), (N,)
        matches = (scaled * text_features).sum(dim=1)
        return ((over_captions + over_images) / 2 - matches).mean()


def distributed_contrastive_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor, tile: int = 2048
) -> torch.Tensor:
    """The loss of a batch that is spread over W processes, n = N / W pairs each, all of them negatives.

    image_features, text_features: (n, E), this process's own
    Returns the mean over the process's own n pairs; the mean of that over the processes is the loss of
    the whole batch. Gradients follow the convention of DistributedDataParallel, which averages them
    over the processes: the average is the whole batch's gradient.

    Each process computes the n x N similarities of its own pictures with everybody's captions, once.
    Captions are gathered with their gradient; of the pictures nothing travels but, for each caption,
    one partial log-sum-exp. Alone, it is `tiled_contrastive_loss`.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return tiled_contrastive_loss(image_features, text_features, logit_scale, tile)
    check_pairs(image_features, text_features, tile)
    with torch.autocast(image_features.device.type, enabled=False):
        image_features, text_features = at_least_float32(image_features, text_features)
        scaled = logit_scale * image_features
        all_text_features = GatherRows.apply(text_features)  # (N, E)
        over_captions, partial = TiledLogSumExp.apply(scaled, all_text_features, tile)  # (n,), (N,)
        partials = GatherRows.apply(partial).view(-1, dist.get_world_size(), len(text_features))  # (W, W, n)
        over_images = partials[:, dist.get_rank()].logsumexp(dim=0)  # (n,): own captions over everybody's pictures
        matches = (scaled * text_features).sum(dim=1)
        return ((over_captions + over_images) / 2 - matches).mean()


class TiledLogSumExp(torch.autograd.Function):
    """Log-sum-exps of logits = a @ b.T, along rows and along columns, `tile` rows at a time.

    a: (n, E); b: (m, E) -> over rows (n,), over columns (m,). The derivative of a log-sum-exp is the
    softmax, which the backward pass makes anew, strip by strip, from what the forward pass returned.
    """

    @staticmethod
    def forward(ctx, a, b, tile):
        over_rows = a.new_empty(len(a))
        over_columns = b.new_full((len(b),), -torch.inf)
        for strip in strips(len(a), tile):
            logits = a[strip] @ b.T  # (tile, m)
            over_rows[strip] = logits.logsumexp(dim=1)
            over_columns = torch.logaddexp(over_columns, logits.logsumexp(dim=0))  # online: so far, and this strip
        ctx.save_for_backward(a, b, over_rows, over_columns)
        ctx.tile = tile
        return over_rows, over_columns

    @staticmethod
    @once_differentiable
    def backward(ctx, row_gradient, column_gradient):
        a, b, over_rows, over_columns = ctx.saved_tensors
        a_gradient, b_gradient = torch.empty_like(a), torch.zeros_like(b)
        with torch.autocast(a.device.type, enabled=False):
            for strip in strips(len(a), ctx.tile):
                logits = a[strip] @ b.T
                along_rows = (logits - over_rows[strip, None]).exp_()  # softmax over the captions
                along_columns = logits.sub_(over_columns).exp_()  # and over the pictures
                gradient = along_rows.mul_(row_gradient[strip, None]).addcmul_(along_columns, column_gradient)
                a_gradient[strip] = gradient @ b
                b_gradient.addmm_(gradient.T, a[strip])
        return a_gradient, b_gradient, None


class GatherRows(torch.autograd.Function):
    """The rows of all processes, in order of rank: (n, ...) -> (W n, ...). A gradient that arrives on any
    process for another's rows goes back to the process they came from."""

    @staticmethod
    def forward(ctx, rows):
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def strips(rows: int, tile: int) -> list[slice]:
    """Slices of at most `tile` rows; the last may be shorter."""
    return [slice(start, min(start + tile, rows)) for start in range(0, rows, tile)]


def at_least_float32(*features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Half precision, as autocast leaves it, is too coarse for exponentials."""
    return tuple(f.float() if f.dtype in (torch.bfloat16, torch.float16) else f for f in features)


def check_pairs(image_features: torch.Tensor, text_features: torch.Tensor, tile: int) -> None:
    if image_features.ndim != 2 or image_features.shape != text_features.shape or not len(image_features):
        raise MinclipError(
            f"Image features have shape {tuple(image_features.shape)}, text features {tuple(text_features.shape)}; "
            "the loss needs as many of one as of the other, (N, E) each, in matching order."
        )
    if tile < 1:
        raise MinclipError(f"tile is {tile}; give the rows of similarities to hold at a time, at least 1.")

"""A batch larger than memory, with the gradients of the whole (gradient caching, Gao et al. 2021).

`backward_in_chunks` embeds a batch in parts and contrasts it as one: what makes 32,768 candidates a
step fit. Exact where adding up the gradients of parts is not, the temperature's included. Notebook 12.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel

from .checkpoint import random_states, restore_random_states
from .errors import MinclipError
from .loss import distributed_contrastive_loss


def backward_in_chunks(
    model: torch.nn.Module, images: torch.Tensor, tokens: torch.Tensor, chunk: int = 256
) -> torch.Tensor:
    """The whole batch's gradients, added to every `.grad`, with the graph of one chunk in memory at a
    time (gradient caching, Gao et al. 2021). Returns the loss, without a graph.

    model: called with (B, 3, R, R) and (B, L); returns two (B, E) and the logit scale, as CLIP does
    chunk: pairs embedded at a time

    Embeddings depend on the parameters, and the loss on the parameters only through the embeddings: so
    the chain rule may be cut there. Exact for any chunking, dropout included, as long as a picture's
    embedding does not depend on its neighbours. BatchNorm's does: a ResNet's chunks are each normalised
    by their own statistics, which is another function than the whole batch at once, and its running
    averages move twice, in steps 1 and 3. What comes out is the exact gradient of that other function.

    Raises MinclipError unless there are as many captions as pictures, and `chunk` is at least 1.
    """
    if chunk < 1:
        raise MinclipError(f"chunk is {chunk}; give the pairs to embed at a time, at least 1.")
    if len(images) != len(tokens):  # the chunks would pair them up as far as they go
        raise MinclipError(f"There are {len(images)} pictures and {len(tokens)} captions; give one caption a picture.")
    chunks = list(zip(images.split(chunk), tokens.split(chunk)))

    # 1. Embed all chunks without a graph, and remember the random numbers each one was about to draw.
    random, features = [], []
    with torch.no_grad():
        for some_images, some_tokens in chunks:
            random.append(random_states())
            features.append(model(some_images, some_tokens))

    # 2. The loss, as a function of the embeddings and the scale alone, and its gradients.
    image_features, text_features, scales = zip(*features)
    inputs = [t.requires_grad_() for t in (torch.cat(image_features), torch.cat(text_features), scales[0])]
    loss = distributed_contrastive_loss(*inputs)
    image_gradients, text_gradients, scale_gradient = torch.autograd.grad(loss, inputs)

    gradients = list(zip(image_gradients.split(chunk), text_gradients.split(chunk)))
    for place, pairs in enumerate(chunks):
        with averaging(model, now=place == len(chunks) - 1):
            # 3. Replay a chunk, now with a graph, and with the same random numbers.
            restore_random_states(random[place])
            outputs = model(*pairs)
            # 4. From its embeddings' gradients on, backwards. Each chunk carries its part of the scale's:
            #    the whole of it every time would come out too large by the number of chunks.
            shares = [*gradients[place], scale_gradient / len(chunks)]
            learning = [(output, share) for output, share in zip(outputs, shares) if output.requires_grad]  # not frozen
            torch.autograd.backward(*zip(*learning))
    return loss.detach()


def averaging(model: torch.nn.Module, now: bool) -> AbstractContextManager:
    """Within, and unless `now`: gradients pile up here and are not yet averaged over the processes."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not now else nullcontext()

"""Answers to the exercises on the contrastive loss: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import math

import torch
import torch.nn.functional as F

import minclip

# 1. One picture among N captions


def pair_loss__right_by_softmax(logits, match):
    return -logits.log_softmax(dim=-1)[match]


def pair_loss__right_by_cross_entropy(logits, match):
    return F.cross_entropy(logits[None], torch.tensor([match]))


def pair_loss__right_in_a_loop(logits, match):
    total = torch.zeros_like(logits[0])
    for logit in logits:
        total = total + (logit - logits.max()).exp()
    return total.log() + logits.max() - logits[match]


def pair_loss__without_the_minus(logits, match):
    """Returns the log-probability. Belief: a good model makes the loss large."""
    return logits[match] - logits.logsumexp(dim=0)


def pair_loss__match_left_out_of_the_sum(logits, match):
    """Sums over the other captions alone. Belief: the match is not among the candidates it competes with."""
    others = torch.cat([logits[:match], logits[match + 1 :]])
    return others.logsumexp(dim=0) - logits[match] if len(others) else logits.sum() * 0


def pair_loss__in_bits(logits, match):
    """Takes the logarithm to base 2. Belief: cross-entropy is measured in bits."""
    return (logits.logsumexp(dim=0) - logits[match]) / math.log(2)


def pair_loss__of_the_largest(logits, match):
    """Uses the largest logit for the match. Belief: what the model chooses is what is right."""
    return logits.logsumexp(dim=0) - logits.max()


def pair_loss__overflows(logits, match):
    """Exponentiates as it stands. Belief: the formula on paper is the formula in floating point."""
    return -(logits[match].exp() / logits.exp().sum()).log()


def pair_loss__with_an_epsilon(logits, match):
    """Adds a small number to keep the logarithm finite. Belief: 1e-8 is as good as nothing."""
    return -(logits.softmax(dim=0)[match] + 1e-8).log()


def pair_loss__as_a_number(logits, match):
    """Leaves PyTorch for a Python number. Belief: only the value of a loss matters."""
    return torch.tensor((logits.logsumexp(dim=0) - logits[match]).item(), dtype=logits.dtype)


def pair_loss__detached(logits, match):
    """Hands out numbers without their graph. Belief: a loss is a number."""
    return pair_loss__right_by_cross_entropy(logits, match).detach()


# 2. Both directions


def symmetric_loss__right_by_einsum(logits):
    if logits.dim() != 2 or len(set(logits.shape)) != 1:
        raise ValueError("not square")
    truth = torch.eye(len(logits), dtype=logits.dtype)
    both = logits.log_softmax(0) + logits.log_softmax(1)
    return -torch.einsum("ij,ij->", both, truth) / (2 * len(logits))


def symmetric_loss__right_in_loops(logits):
    n, m = logits.shape
    if n != m:
        raise ValueError(f"{n} pictures, {m} captions")
    costs = []
    for i in range(n):
        costs.append(torch.logsumexp(logits[i], 0) - logits[i, i])
        costs.append(torch.logsumexp(logits[:, i], 0) - logits[i, i])
    return torch.stack(costs).mean()


def _labels(logits):
    if logits.shape[0] != logits.shape[1]:
        raise ValueError("not square")
    return torch.arange(len(logits))


def symmetric_loss__of_pictures_alone(logits):
    """One direction. Belief: a picture that finds its caption has been found by it."""
    return F.cross_entropy(logits, _labels(logits))


def symmetric_loss__of_captions_alone(logits):
    """The other direction. Belief: rows are captions."""
    return F.cross_entropy(logits.T, _labels(logits))


def symmetric_loss__not_halved(logits):
    """The sum of both directions. Belief: a factor of two does not matter (it moves ln N, and the step)."""
    return F.cross_entropy(logits, _labels(logits)) + F.cross_entropy(logits.T, _labels(logits))


def symmetric_loss__summed_over_pairs(logits):
    """A sum where the mean belongs. Belief: reduction="sum" is the same loss."""
    labels = _labels(logits)
    return (F.cross_entropy(logits, labels, reduction="sum") + F.cross_entropy(logits.T, labels, reduction="sum")) / 2


def symmetric_loss__one_softmax_over_all_pairs(logits):
    """Softmax over the N x N pairs. Belief: all non-matches compete with each match."""
    return -(logits.flatten().log_softmax(0).view_as(logits).diagonal()).mean() if len(_labels(logits)) else None


def symmetric_loss__shifted_targets(logits):
    """The matches one place beside the diagonal. Belief: labels count from 1."""
    labels = (_labels(logits) + 1) % len(logits)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def symmetric_loss__same_axis_twice(logits):
    """Transposed and back: rows both times. Belief: softmax over dim 1 of the transpose, transposed again, is columns'."""
    labels = _labels(logits)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T.T, labels)) / 2


def symmetric_loss__overflows(logits):
    """Exponentials as they stand. Belief: softmax is exp over sum of exp, also in floating point."""
    if logits.shape[0] != logits.shape[1]:
        raise ValueError("not square")
    both = logits.exp().sum(0).log() + logits.exp().sum(1).log()
    return (both / 2 - logits.diagonal()).mean()


def symmetric_loss__of_any_shape(logits):
    """Takes the diagonal of a matrix that is not square. Belief: callers always pair things up."""
    diagonal = logits.diagonal()
    rows, columns = logits.logsumexp(1)[: len(diagonal)], logits.logsumexp(0)[: len(diagonal)]
    return ((rows + columns) / 2 - diagonal).mean()


def symmetric_loss__detached(logits):
    """Hands out a number without its graph. Belief: a loss is there to be looked at."""
    return symmetric_loss__right_by_einsum(logits).detach()


def symmetric_loss__less_the_largest_of_all(logits):
    """Subtracts one number from all logits. Belief: whatever keeps the exponentials small is enough."""
    _labels(logits)
    z = logits - logits.max()
    return ((z.exp().sum(0).log() + z.exp().sum(1).log()) / 2 - z.diagonal()).mean()


def symmetric_loss__captions_detached(logits):
    """Cuts the second direction off. Belief: the pictures learn, and the captions are given."""
    labels = _labels(logits)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.detach().T, labels)) / 2


# 3. From features, with a learned temperature


def loss_from_features__right_by_cosine_similarity(image_features, text_features, log_scale):
    cosines = F.cosine_similarity(image_features[:, None], text_features[None], dim=-1)
    logits = cosines / torch.exp(-log_scale)
    return -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 2


def loss_from_features__right_lengths_divided_last(image_features, text_features, log_scale):
    lengths = image_features.norm(dim=1)[:, None] * text_features.norm(dim=1)
    logits = torch.einsum("ie,te->it", image_features, text_features) * log_scale.exp() / lengths
    return (logits.logsumexp(0) + logits.logsumexp(1) - 2 * logits.diag()).sum() / (2 * len(logits))


def _symmetric(logits):
    labels = torch.arange(len(logits))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def loss_from_features__not_normalised(image_features, text_features, log_scale):
    """Dot products of features as they come. Belief: the encoders return unit vectors."""
    return _symmetric(log_scale.exp() * image_features @ text_features.T)


def loss_from_features__normalised_down_the_batch(image_features, text_features, log_scale):
    """Divides columns by their lengths. Belief: normalising is what BatchNorm does."""
    return _symmetric(log_scale.exp() * F.normalize(image_features, dim=0) @ F.normalize(text_features, dim=0).T)


def loss_from_features__one_side_normalised(image_features, text_features, log_scale):
    """Captions keep their lengths. Belief: a softmax over captions is not changed by the caption's length."""
    return _symmetric(log_scale.exp() * F.normalize(image_features, dim=-1) @ text_features.T)


def loss_from_features__scale_taken_as_it_is(image_features, text_features, log_scale):
    """Multiplies by the logarithm. Belief: the parameter is the scale itself."""
    return _symmetric(log_scale * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T)


def loss_from_features__scale_divides(image_features, text_features, log_scale):
    """Divides by the scale. Belief: logit scale is another word for temperature."""
    return _symmetric(F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T / log_scale.exp())


def loss_from_features__scale_detached(image_features, text_features, log_scale):
    """A scale that never learns. Belief: `.item()` gives the same loss (it does, and no gradient)."""
    return _symmetric(
        log_scale.exp().item() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T
    )


def loss_from_features__texts_detached(image_features, text_features, log_scale):
    """Captions as fixed targets. Belief: pictures should move towards captions, not both."""
    text_features = text_features.detach()
    return _symmetric(log_scale.exp() * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T)


def loss_from_features__right_with_a_tiny_length_added(image_features, text_features, log_scale):
    u, v = (x / (x.norm(dim=-1, keepdim=True) + 1e-8) for x in (image_features, text_features))
    return _symmetric(log_scale.exp() * u @ v.T)


def loss_from_features__scale_clamped(image_features, text_features, log_scale):
    """Keeps the scale at 100 within the loss. Belief: where the paper clips is part of the function."""
    u, v = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    return _symmetric(log_scale.exp().clamp(max=100) * u @ v.T)


# 4. The gradient by hand


def loss_gradient__right_by_autograd(logits):
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(_symmetric(leaf), leaf)[0]


def loss_gradient__right_by_rows_and_transpose(logits):
    def one_way(rows):
        return (rows - rows.logsumexp(1, keepdim=True)).exp() - torch.eye(len(rows), dtype=rows.dtype)

    return (one_way(logits) + one_way(logits.T).T) / 2 / len(logits)


def loss_gradient__without_the_mean(logits):
    """Forgets 1 / (2 N). Belief: the size of a gradient is the learning rate's business."""
    return logits.softmax(1) + logits.softmax(0) - 2 * torch.eye(len(logits), dtype=logits.dtype)


def loss_gradient__of_softmax_alone(logits):
    """Takes no truth away. Belief: the gradient of a cross-entropy is its softmax."""
    return (logits.softmax(1) + logits.softmax(0)) / (2 * len(logits))


def loss_gradient__identity_once(logits):
    """Takes the identity away once. Belief: each match stands once in the matrix (but in a row and a column)."""
    return (logits.softmax(1) + logits.softmax(0) - torch.eye(len(logits), dtype=logits.dtype)) / (2 * len(logits))


def loss_gradient__sign_turned(logits):
    """Truth minus prediction. Belief: the gradient points where the logits should go."""
    return (2 * torch.eye(len(logits), dtype=logits.dtype) - logits.softmax(1) - logits.softmax(0)) / (2 * len(logits))


def loss_gradient__rows_twice(logits):
    """Softmax along rows for both directions. Belief: the second direction has the same probabilities."""
    return (logits.softmax(1) - torch.eye(len(logits), dtype=logits.dtype)) / len(logits)


def loss_gradient__transposed(logits):
    """Adds the columns' direction without transposing back. Belief: the gradient of z.T needs no .T."""
    truth = torch.eye(len(logits), dtype=logits.dtype)
    return (logits.softmax(1) + logits.T.softmax(1) - 2 * truth) / (2 * len(logits))


def loss_gradient__overflows(logits):
    """Exponentials as they stand. Belief: softmax is exp over sum of exp, also in floating point."""
    e = logits.exp()
    return (e / e.sum(1, keepdim=True) + e / e.sum(0) - 2 * torch.eye(len(e), dtype=e.dtype)) / (2 * len(e))


def loss_gradient__less_the_largest_of_all(logits):
    """Subtracts one number from all logits. Belief: whatever keeps the exponentials small is enough."""
    e = (logits - logits.max()).exp()
    truth = torch.eye(len(e), dtype=e.dtype)
    return (e / e.sum(1, keepdim=True) + e / e.sum(0) - 2 * truth) / (2 * len(e))


def loss_gradient__logits_cut_off(logits):
    """Clamps the logits. Belief: beyond 50 a logit says nothing more."""
    return loss_gradient__right_by_rows_and_transpose(logits.clamp(-50, 50))


# 5. Log-sum-exps, a strip at a time


def tiled_logsumexp__right_row_by_row(a, b, tile):
    over_rows, over_columns = torch.empty_like(a[:, 0]), None
    for i, row in enumerate(a):
        logits = torch.mv(b, row)
        over_rows[i] = logits.logsumexp(0)
        over_columns = logits if over_columns is None else torch.stack([over_columns, logits]).logsumexp(0)
    return over_rows, over_columns


def tiled_logsumexp__right_with_running_maximum(a, b, tile):
    over_rows = []
    highest, total = b.new_full((len(b),), -torch.inf), b.new_zeros(len(b))
    for start in range(0, len(a), tile):
        logits = torch.einsum("ie,je->ij", a[start : start + tile], b)
        over_rows += [logits.logsumexp(1)]
        higher = torch.maximum(highest, logits.amax(0))
        total = total * (highest - higher).exp() + (logits - higher).exp().sum(0)
        highest = higher
    return torch.cat(over_rows), highest + total.log()


def tiled_logsumexp__all_at_once(a, b, tile):
    """The whole matrix. Belief: memory is somebody else's problem."""
    logits = a @ b.T
    return logits.logsumexp(1), logits.logsumexp(0)


def tiled_logsumexp__all_at_once_then_split(a, b, tile):
    """Cuts strips out of the whole matrix. Belief: working on strips is what saves memory, not making them."""
    strips = (a @ b.T).split(tile)
    return torch.cat([strip.logsumexp(1) for strip in strips]), torch.stack(
        [strip.logsumexp(0) for strip in strips]
    ).logsumexp(0)


def tiled_logsumexp__last_strip_lost(a, b, tile):
    """Whole strips only. Belief: tile divides n."""
    tile = min(tile, len(a))
    rows, columns = [], b.new_full((len(b),), -torch.inf)
    for k in range(len(a) // tile):
        logits = a[k * tile : (k + 1) * tile] @ b.T
        rows.append(logits.logsumexp(1))
        columns = torch.logaddexp(columns, logits.logsumexp(0))
    return torch.cat(rows), columns


def _strips(a, b, tile, start, combine):
    rows, columns = [], b.new_full((len(b),), start)
    for strip in a.split(tile):
        logits = strip @ b.T
        rows.append(logits.logsumexp(1))
        columns = combine(columns, logits.logsumexp(0))
    return torch.cat(rows), columns


def tiled_logsumexp__columns_from_zero(a, b, tile):
    """Starts the columns at 0. Belief: an empty sum is 0, also under a logarithm."""
    return _strips(a, b, tile, 0.0, torch.logaddexp)


def tiled_logsumexp__columns_added(a, b, tile):
    """Adds log-sum-exps. Belief: sums of parts add up, also under a logarithm."""
    return _strips(a, b, tile, 0.0, torch.add)


def tiled_logsumexp__columns_by_maximum(a, b, tile):
    """Keeps the largest part. Belief: a log-sum-exp is a maximum (it is up to ln n more)."""
    return _strips(a, b, tile, -torch.inf, torch.maximum)


def tiled_logsumexp__overflows(a, b, tile):
    """Adds exponentials, takes one logarithm at the end. Belief: exp has room enough."""
    rows, columns = [], b.new_zeros(len(b))
    for strip in a.split(tile):
        exponentials = (strip @ b.T).exp()
        rows.append(exponentials.sum(1).log())
        columns = columns + exponentials.sum(0)
    return torch.cat(rows), columns.log()


def tiled_logsumexp__strips_of_another_size(a, b, tile):
    """Cuts into `tile` strips. Belief: tile is how many strips there are (memory then grows with n)."""
    return _strips(a, b, -(-len(a) // tile), -torch.inf, torch.logaddexp)


def tiled_logsumexp__strips_kept(a, b, tile):
    """Makes all strips first. Belief: what matters is that no single tensor is large."""
    strips = [strip @ b.T for strip in a.split(tile)]
    columns = strips[0].logsumexp(0)
    for strip in strips[1:]:
        columns = torch.logaddexp(columns, strip.logsumexp(0))
    return torch.cat([strip.logsumexp(1) for strip in strips]), columns


def tiled_logsumexp__strips_of_columns(a, b, tile):
    """Holds all rows for some columns. Belief: a tile is a tile."""
    columns, rows = [], a.new_full((len(a),), -torch.inf)
    for strip in b.split(tile):
        logits = a @ strip.T
        columns.append(logits.logsumexp(0))
        rows = torch.logaddexp(rows, logits.logsumexp(1))
    return rows, torch.cat(columns)


def tiled_logsumexp__columns_from_a_low_number(a, b, tile):
    """Starts the columns at -10,000. Belief: no logit is lower."""
    rows, columns = [], b.new_full((len(b),), -1e4)
    for strip in a.split(tile):
        logits = strip @ b.T
        rows.append(logits.logsumexp(1))
        columns = torch.logaddexp(columns, logits.logsumexp(0))
    return torch.cat(rows), columns


# 6. A gradient cache


def cached_backward__right_by_weighted_sum(image_encoder, text_encoder, log_scale, images, texts, chunk):
    with torch.no_grad():
        u = torch.cat([image_encoder(images[i : i + chunk]) for i in range(0, len(images), chunk)])
        v = torch.cat([text_encoder(texts[i : i + chunk]) for i in range(0, len(texts), chunk)])
    u, v = u.requires_grad_(), v.requires_grad_()
    logits = log_scale.exp() * F.normalize(u, dim=1) @ F.normalize(v, dim=1).T
    loss = (logits.logsumexp(0) + logits.logsumexp(1)).mean() / 2 - logits.diagonal().mean()
    du, dv, ds = torch.autograd.grad(loss, [u, v, log_scale])
    log_scale.grad = ds if log_scale.grad is None else log_scale.grad + ds
    for i in range(0, len(images), chunk):
        # A stand-in whose gradient is the one wanted.
        (image_encoder(images[i : i + chunk]) * du[i : i + chunk]).sum().backward()
        (text_encoder(texts[i : i + chunk]) * dv[i : i + chunk]).sum().backward()
    return loss.detach()


def cached_backward__right_normalised_in_the_encoders(image_encoder, text_encoder, log_scale, images, texts, chunk):
    def unit(encoder, rows):
        return F.normalize(encoder(rows), dim=-1)

    sides = ((image_encoder, images.split(chunk)), (text_encoder, texts.split(chunk)))
    with torch.no_grad():
        features = [torch.cat([unit(encoder, rows) for rows in inputs]) for encoder, inputs in sides]
    features = [side.requires_grad_() for side in features]
    loss = minclip.contrastive_loss(*features, log_scale.exp())
    loss.backward()
    for (encoder, inputs), side in zip(sides, features):
        for rows, gradient in zip(inputs, side.grad.split(chunk)):
            torch.autograd.backward(unit(encoder, rows), gradient)
    return loss.detach()


def cached_backward__right_with_each_graph_dropped(image_encoder, text_encoder, log_scale, images, texts, chunk):
    def features(encoder, inputs):
        parts = []
        for start in range(0, len(inputs), chunk):
            part = encoder(inputs[start : start + chunk])
            parts.append(part.detach())
        return torch.cat(parts).requires_grad_()

    sides = [features(image_encoder, images), features(text_encoder, texts)]
    loss = _loss(*sides, log_scale)
    loss.backward()
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        outputs = image_encoder(images[part]), text_encoder(texts[part])
        torch.autograd.backward(outputs, [side.grad[part] for side in sides])
    return loss.detach()


def _loss(u, v, log_scale):
    return minclip.contrastive_loss(F.normalize(u, dim=-1), F.normalize(v, dim=-1), log_scale.exp())


def _features(image_encoder, text_encoder, images, texts, chunk):
    with torch.no_grad():
        u = torch.cat([image_encoder(rows) for rows in images.split(chunk)])
        v = torch.cat([text_encoder(rows) for rows in texts.split(chunk)])
    return u.requires_grad_(), v.requires_grad_()


def cached_backward__of_the_whole_batch(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """One graph for all. Belief: gradients are right, so the task is done."""
    loss = _loss(image_encoder(images), text_encoder(texts), log_scale)
    loss.backward()
    return loss.detach()


def cached_backward__all_graphs_kept(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Encodes chunk by chunk, and keeps every graph. Belief: small calls need little memory."""
    u = torch.cat([image_encoder(rows) for rows in images.split(chunk)])
    v = torch.cat([text_encoder(rows) for rows in texts.split(chunk)])
    loss = _loss(u, v, log_scale)
    loss.backward()
    return loss.detach()


def cached_backward__graphs_kept_for_later(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Keeps the chunks' graphs until the gradient of the features is known. Belief: encoding twice is a waste."""
    parts = [
        [encoder(rows) for rows in inputs.split(chunk)]
        for encoder, inputs in ((image_encoder, images), (text_encoder, texts))
    ]
    sides = [torch.cat(side).detach().requires_grad_() for side in parts]
    loss = _loss(*sides, log_scale)
    loss.backward()
    for side, own in zip(sides, parts):
        for features, gradient in zip(own, side.grad.split(chunk)):
            features.backward(gradient)
    return loss.detach()


def cached_backward__negatives_lost(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Ordinary gradient accumulation. Belief: the loss of a batch is the mean of its chunks' losses."""
    total = 0.0
    for some_images, some_texts in zip(images.split(chunk), texts.split(chunk)):
        loss = _loss(image_encoder(some_images), text_encoder(some_texts), log_scale) * len(some_images) / len(images)
        loss.backward()
        total = total + loss.detach()
    return total


def cached_backward__scale_once_a_chunk(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """The loss is taken anew for each chunk that is replayed, so the scale's gradient comes k times.
    Belief: what is exact for the encoders is exact for every parameter."""
    u, v = _features(image_encoder, text_encoder, images, texts, chunk)
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        mine, yours = image_encoder(images[part]), text_encoder(texts[part])
        u_whole = torch.cat([u[:start].detach(), mine, u[start + chunk :].detach()])
        v_whole = torch.cat([v[:start].detach(), yours, v[start + chunk :].detach()])
        loss = _loss(u_whole, v_whole, log_scale)
        loss.backward()
    return loss.detach()


def cached_backward__captions_forgotten(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Replays pictures alone. Belief: loss.backward() has already reached the text encoder."""
    u, v = _features(image_encoder, text_encoder, images, texts, chunk)
    loss = _loss(u, v, log_scale)
    loss.backward()
    for rows, gradient in zip(images.split(chunk), u.grad.split(chunk)):
        image_encoder(rows).backward(gradient)
    return loss.detach()


def cached_backward__gradient_of_other_features(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Cuts the chain behind the normalisation and replays in front of it. Belief: normalising has no derivative."""
    u, v = _features(image_encoder, text_encoder, images, texts, chunk)
    u, v = (F.normalize(side.detach(), dim=-1).requires_grad_() for side in (u, v))
    loss = minclip.contrastive_loss(u, v, log_scale.exp())
    loss.backward()
    for encoder, inputs, side in ((image_encoder, images, u), (text_encoder, texts, v)):
        for rows, gradient in zip(inputs.split(chunk), side.grad.split(chunk)):
            encoder(rows).backward(gradient)
    return loss.detach()


def cached_backward__averaged_over_chunks(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Divides each chunk's gradient by the number of chunks. Belief: gradient accumulation always averages."""
    u, v = _features(image_encoder, text_encoder, images, texts, chunk)
    loss = _loss(u, v, log_scale)
    loss.backward()
    for encoder, inputs, side in ((image_encoder, images, u), (text_encoder, texts, v)):
        parts = inputs.split(chunk)
        for rows, gradient in zip(parts, side.grad.split(chunk)):
            encoder(rows).backward(gradient / len(parts))
    return loss.detach()


def cached_backward__zeroes_first(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Clears every gradient before it begins. Belief: nobody has anything in .grad."""
    for parameter in (*image_encoder.parameters(), *text_encoder.parameters(), log_scale):
        parameter.grad = None
    u, v = _features(image_encoder, text_encoder, images, texts, chunk)
    loss = _loss(u, v, log_scale)
    loss.backward()
    for encoder, inputs, side in ((image_encoder, images, u), (text_encoder, texts, v)):
        for rows, gradient in zip(inputs.split(chunk), side.grad.split(chunk)):
            encoder(rows).backward(gradient)
    return loss.detach()


def cached_backward__right_by_checkpointing(image_encoder, text_encoder, log_scale, images, texts, chunk):
    u, v = (
        torch.cat([torch.utils.checkpoint.checkpoint(encoder, rows, use_reentrant=False) for rows in side.split(chunk)])
        for encoder, side in ((image_encoder, images), (text_encoder, texts))
    )
    loss = minclip.contrastive_loss(F.normalize(u, dim=-1), F.normalize(v, dim=-1), log_scale.exp())
    loss.backward()
    return loss.detach()


def cached_backward__scale_clamped(image_encoder, text_encoder, log_scale, images, texts, chunk):
    """Keeps the scale at 100 within the loss. Belief: where the paper clips is part of the function."""
    return cached_backward__right_by_checkpointing(
        image_encoder, text_encoder, log_scale.clamp(max=math.log(100)), images, texts, chunk
    )


# 7. Three broken runs


def diagnosis__right_from_a_list():
    return dict(zip("CBA", ("not normalised", "scale divides", "pairs shuffled apart")))


def diagnosis__collapse_for_shuffling():
    """Calls A collapsed. Belief: whatever ends at ln N has collapsed (but then it would not fluctuate)."""
    return {"A": "captions collapsed", "B": "scale divides", "C": "not normalised"}


def diagnosis__detached_for_dividing():
    """Calls B detached. Belief: a loss that falls late has a scale that does not learn (B's learns more than any)."""
    return {"A": "pairs shuffled apart", "B": "scale detached", "C": "not normalised"}


def diagnosis__sum_for_length():
    """Calls C a sum. Belief: whatever is large was added up (a sum is exactly 32 times the normal curve, all along)."""
    return {"A": "pairs shuffled apart", "B": "scale divides", "C": "summed over pairs"}


def diagnosis__a_and_b_exchanged():
    """Exchanges A and B. Belief: both stand at ln 32, so they are alike (one at the end, one at the start)."""
    return {"A": "scale divides", "B": "pairs shuffled apart", "C": "not normalised"}


def diagnosis__in_own_words():
    """Uses other words than the list's. Belief: somebody reads it."""
    return {"A": "wrong pairs", "B": "divided by the scale", "C": "not normalised"}


# 9. The floor under the loss


def lowest_loss__right_as_a_logsumexp(n, scale):
    logits = torch.full((n,), -scale / max(n - 1, 1), dtype=torch.float64)
    logits[0] = scale
    return (logits.logsumexp(0) - logits[0]).item()


def lowest_loss__at_right_angles(n, scale):
    """Different pairs at cosine 0. Belief: unrelated things are at right angles, and nothing is further apart."""
    return math.log1p((n - 1) * math.exp(-scale))


def lowest_loss__all_opposite(n, scale):
    """Different pairs at cosine -1. Belief: any number of vectors can be opposite to each other."""
    return math.log1p((n - 1) * math.exp(-2 * scale)) if n > 1 else 0.0


def lowest_loss__one_too_many(n, scale):
    """Counts the match among the wrong captions. Belief: there are N negatives."""
    return math.log1p(n * math.exp(-scale * n / (n - 1))) if n > 1 else 0.0


def lowest_loss__zero(n, scale):
    """Belief: a perfect model has no loss."""
    return 0.0


def lowest_loss__overflows(n, scale):
    """Divides exponentials, so that a scale in the thousands fails. Belief: scales stay small."""
    if n == 1:
        return 0.0
    match = math.exp(scale)
    return -math.log(match / (match + (n - 1) * math.exp(-scale / (n - 1))))


def lowest_loss__one_pair_forgotten(n, scale):
    """Divides by N - 1, also where that is 0. Belief: there is always somebody else."""
    return math.log1p((n - 1) * math.exp(-scale * n / (n - 1)))


def lowest_loss__right_in_single_precision(n, scale):
    logits = torch.full((n,), -scale / max(n - 1, 1))
    logits[0] = scale
    return (logits.logsumexp(0) - logits[0]).item()


# 10. The loss of several processes


def mended_shares__right_all_at_once(image_shares, text_shares, log_scale):
    images, texts = torch.cat(list(image_shares)), torch.cat(list(text_shares))
    logits = log_scale.exp() * torch.einsum("ie,te->it", images, texts)
    costs = (logits.logsumexp(0) + logits.logsumexp(1)) / 2 - logits.diagonal()
    return list(costs.view(len(image_shares), -1).mean(dim=1))


def _shares(image_shares, text_shares, log_scale, labels_of, gather=torch.cat, sides=2):
    all_images, all_texts = gather(list(image_shares)), gather(list(text_shares))
    losses = []
    for rank, (images, texts) in enumerate(zip(image_shares, text_shares)):
        labels = labels_of(rank, len(images))
        loss = F.cross_entropy(log_scale.exp() * images @ all_texts.T, labels)
        if sides == 2:
            loss = (loss + F.cross_entropy(log_scale.exp() * texts @ all_images.T, labels)) / 2
        losses.append(loss)
    return losses


def _of_rank(rank, n):
    return rank * n + torch.arange(n)


def mended_shares__labels_alone(image_shares, text_shares, log_scale):
    """Mends the labels and leaves the features detached. Belief: the loss is right now, so its gradient is."""
    return _shares(image_shares, text_shares, log_scale, _of_rank, lambda parts: torch.cat(parts).detach())


def mended_shares__gradient_alone(image_shares, text_shares, log_scale):
    """Mends the gradient and leaves the labels. Belief: each process's matches are its first columns."""
    return _shares(image_shares, text_shares, log_scale, lambda rank, n: torch.arange(n))


def mended_shares__own_negatives_alone(image_shares, text_shares, log_scale):
    """Each process among its own pairs. Belief: the mean of the parts' losses is the loss of the whole."""
    return [minclip.contrastive_loss(u, v, log_scale.exp()) for u, v in zip(image_shares, text_shares)]


def mended_shares__own_rows_alone_with_gradient(image_shares, text_shares, log_scale):
    """Puts the own features back among the detached ones. Belief: others' features are others' business."""
    losses = []
    for rank in range(len(image_shares)):
        own = [
            [part if r == rank else part.detach() for r, part in enumerate(side)]
            for side in (image_shares, text_shares)
        ]
        losses.append(_shares(*own, log_scale, _of_rank)[rank])
    return losses


def mended_shares__captions_forgotten(image_shares, text_shares, log_scale):
    """Pictures choose, captions do not. Belief: every pair is counted once anyway."""
    return _shares(image_shares, text_shares, log_scale, _of_rank, sides=1)


def mended_shares__every_process_the_whole(image_shares, text_shares, log_scale):
    """Each process returns the whole batch's loss. Belief: only their mean matters."""
    loss = minclip.contrastive_loss(torch.cat(list(image_shares)), torch.cat(list(text_shares)), log_scale.exp())
    return [loss for _ in image_shares]


def mended_shares__scale_clamped(image_shares, text_shares, log_scale):
    """Keeps the scale at 100 within the loss. Belief: where the paper clips is part of the function."""
    return mended_shares__right_all_at_once(image_shares, text_shares, log_scale.clamp(max=math.log(100)))

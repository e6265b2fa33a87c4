"""Answers to the exercises on full pretraining: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import math
from collections import Counter
from itertools import groupby

import torch

import minclip
from minclip.gradient_cache import backward_in_chunks

# 1. Which pictures are mine?


def own_places__right_by_cutting_the_batch(step, batch_size, rank, world_size):
    if batch_size % world_size != 0:
        raise ValueError("The batch does not divide.")
    batch = range(step * batch_size, step * batch_size + batch_size)
    return batch[rank * len(batch) // world_size : (rank + 1) * len(batch) // world_size]


def own_places__a_batch_each(step, batch_size, rank, world_size):
    """Each process takes a whole batch. Belief: batch_size is what one process works on."""
    start = (step * world_size + rank) * batch_size
    return range(start, start + batch_size)


def own_places__steps_of_a_share(step, batch_size, rank, world_size):
    """Steps a share further each time. Belief: the stream moves on by what I took."""
    if batch_size % world_size:
        raise ValueError("The batch does not divide.")
    share = batch_size // world_size
    start = step * share + rank * share
    return range(start, start + share)


def own_places__dealt_like_cards(step, batch_size, rank, world_size):
    """Every so-manyth picture. Belief: as long as nothing is taken twice, the order is free."""
    if batch_size % world_size:
        raise ValueError("The batch does not divide.")
    return range(step * batch_size + rank, (step + 1) * batch_size, world_size)


def own_places__all_the_same(step, batch_size, rank, world_size):
    """The first share for everybody. Belief: a shuffled loader gives each process other pictures by itself."""
    if batch_size % world_size:
        raise ValueError("The batch does not divide.")
    start = step * batch_size
    return range(start, start + batch_size // world_size)


def own_places__counted_from_one(step, batch_size, rank, world_size):
    """Skips the first share. Belief: ranks count from 1."""
    if batch_size % world_size:
        raise ValueError("The batch does not divide.")
    share = batch_size // world_size
    start = step * batch_size + (rank + 1) * share
    return range(start, start + share)


def own_places__remainder_left_out(step, batch_size, rank, world_size):
    """Rounds down. Belief: a few pictures more or less do not matter."""
    share = batch_size // world_size
    start = step * batch_size + rank * share
    return range(start, start + share)


def own_places__right_with_the_packages_error(step, batch_size, rank, world_size):
    if batch_size % world_size:
        raise minclip.MinclipError("uneven")  # a ValueError, too
    share = batch_size // world_size
    return range(step * batch_size + rank * share, step * batch_size + (rank + 1) * share)


# 2. The floor that captions set


def floor_of_duplicates__right_by_counting_groups(captions):
    return sum(m * math.log(m) for m in Counter(captions).values()) / len(captions)


def floor_of_duplicates__right_by_sorting(captions):
    runs = [len(list(same)) for _, same in groupby(sorted(captions))]
    return float(sum(run * math.log(run) for run in runs)) / sum(runs)


def floor_of_duplicates__mean_over_captions(captions):
    """Each different caption counts once. Belief: the mean is over what differs."""
    counts = Counter(captions).values()
    return sum(math.log(m) for m in counts) / len(counts)


def floor_of_duplicates__as_if_fewer_candidates(captions):
    """ln(N / K). Belief: with K different captions among N the loss falls short by their ratio."""
    return math.log(len(captions) / len(set(captions)))


def floor_of_duplicates__doubles_pay_ln_2(captions):
    """ln 2 for each pair whose caption is not alone. Belief: it is between two that one cannot decide."""
    counts = Counter(captions)
    return sum(counts[c] > 1 for c in captions) * math.log(2) / len(captions)


def floor_of_duplicates__first_ones_are_free(captions):
    """Only the doubles pay, not the first of each. Belief: the first picture with a caption is the right one."""
    counts, seen, total = Counter(captions), set(), 0.0
    for caption in captions:
        total += math.log(counts[caption]) * (caption in seen)
        seen.add(caption)
    return total / len(captions)


def floor_of_duplicates__in_bits(captions):
    """Logarithms to base 2. Belief: information is counted in bits, and so is a cross-entropy."""
    return sum(m * math.log2(m) for m in Counter(captions).values()) / len(captions)


def floor_of_duplicates__both_directions_added(captions):
    """Twice. Belief: both directions pay, so the costs add up."""
    return 2 * sum(m * math.log(m) for m in Counter(captions).values()) / len(captions)


def floor_of_duplicates__in_small_letters(captions):
    """Ignores case. Belief: captions are the same if they read the same."""
    return sum(m * math.log(m) for m in Counter(c.lower() for c in captions).values()) / len(captions)


def floor_of_duplicates__right_by_entropy(captions):
    n = len(captions)
    return math.log(n) + sum(m / n * math.log(m / n) for m in Counter(captions).values())


def floor_of_duplicates__sorts_the_callers_list(captions):
    """Sorts where the list lies. Belief: its order means nothing."""
    if isinstance(captions, list):
        captions.sort()
    runs = [len(list(same)) for _, same in groupby(sorted(captions))]
    return sum(m * math.log(m) for m in runs) / len(captions)


# 3. The same model, another batch


def loss_among__right_in_one_piece(logits, candidates):
    whole = len(logits) // candidates
    used = logits[: whole * candidates, : whole * candidates]
    blocks = torch.einsum("bibj->bij", used.reshape(whole, candidates, whole, candidates))
    diagonal = blocks.diagonal(dim1=1, dim2=2)
    return ((blocks.logsumexp(1) + blocks.logsumexp(2)) / 2 - diagonal).mean()


def loss_among__right_by_cross_entropy(logits, candidates):
    total, batches = 0, 0
    for rows in torch.arange(len(logits), device=logits.device).split(candidates):
        if len(rows) == candidates:
            block, labels = logits[rows][:, rows], torch.arange(candidates, device=logits.device)
            both = [torch.nn.functional.cross_entropy(b, labels) for b in (block, block.T)]
            total, batches = total + sum(both) / 2, batches + 1
    return total / batches


def _loss(block):
    return ((block.logsumexp(0) + block.logsumexp(1)) / 2 - block.diagonal()).mean()


def loss_among__less_the_logarithm(logits, candidates):
    """Takes ln(M / n) off. Belief: a loss is ln N less something that belongs to the model."""
    return _loss(logits) - math.log(len(logits) / candidates)


def loss_among__the_first_batch(logits, candidates):
    """One batch. Belief: one is as good as another."""
    return _loss(logits[:candidates, :candidates])


def loss_among__all_captions(logits, candidates):
    """Pictures in batches, captions all. Belief: fewer rows make fewer candidates."""
    parts = logits[: len(logits) // candidates * candidates].split(candidates)
    losses = [(rows.logsumexp(1) - rows.diagonal(i * candidates)).mean() for i, rows in enumerate(parts)]
    return torch.stack(losses).mean()


def loss_among__one_direction(logits, candidates):
    """Pictures choose, captions do not. Belief: both directions have the same loss."""
    own = [slice(i * candidates, (i + 1) * candidates) for i in range(len(logits) // candidates)]
    return torch.stack([(logits[o, o].logsumexp(1) - logits[o, o].diagonal()).mean() for o in own]).mean()


def loss_among__with_what_is_left(logits, candidates):
    """The remainder is a batch, too. Belief: nothing should be wasted."""
    rows = torch.arange(len(logits)).split(candidates)
    return torch.stack([_loss(logits[r][:, r]) for r in rows]).mean()


def loss_among__overflows(logits, candidates):
    """Exponentials as they stand. Belief: logits are no larger than 100."""
    own = [slice(i * candidates, (i + 1) * candidates) for i in range(len(logits) // candidates)]
    blocks = [logits[o, o] for o in own]
    return torch.stack(
        [((b.exp().sum(0).log() + b.exp().sum(1).log()) / 2 - b.diagonal()).mean() for b in blocks]
    ).mean()


def loss_among__in_double_precision(logits, candidates):
    """Returns float64. Belief: more digits never hurt."""
    return loss_among__right_by_cross_entropy(logits.double(), candidates)


# 4. Gradient caching, mended


def mended_cache__right_by_the_package(model, images, texts, chunk):
    return backward_in_chunks(model, images, texts, chunk)


def mended_cache__right_with_the_scale_last(model, images, texts, chunk):
    return _cache(model, images, texts, chunk, scale_share=lambda place, count: float(place == count - 1))


def _cache(model, images, texts, chunk, replay=True, scale_share=lambda place, count: 1 / count, weight=1.0, skip=0):
    """The right answer, with a place for each mistake."""
    starts = range(0, len(images), chunk)
    cut = [(images[s : s + chunk], texts[s : s + chunk]) for s in starts]
    states, u, v = [], [], []
    for pairs in cut:
        states.append(torch.get_rng_state())
        with torch.no_grad():
            a, b, scale = model(*pairs)
        u.append(a)
        v.append(b)
    u, v, scale = (t.detach().clone().requires_grad_() for t in (torch.cat(u), torch.cat(v), scale))
    loss = minclip.contrastive_loss(u, v, scale)
    loss.backward()
    for place, (start, pairs) in enumerate(zip(starts, cut)):
        if skip and len(pairs[0]) < chunk:
            continue
        if replay is True:
            torch.set_rng_state(states[place])
        elif replay == "first":
            torch.set_rng_state(states[0])
        share = scale_share(place, len(cut))
        rows = slice(start, start + chunk)
        torch.autograd.backward(model(*pairs), [weight * u.grad[rows], weight * v.grad[rows], scale.grad * share])
    return loss.detach()


def mended_cache__other_random_numbers(model, images, texts, chunk):
    """Replays with new random numbers. Belief: dropout averages out."""
    return _cache(model, images, texts, chunk, replay=False)


def mended_cache__the_first_numbers_for_all(model, images, texts, chunk):
    """Goes back to the beginning before each chunk. Belief: one saved state is enough."""
    return _cache(model, images, texts, chunk, replay="first")


def mended_cache__scale_once_a_chunk(model, images, texts, chunk):
    """The whole of the scale's gradient with every chunk. Belief: it is like the features'."""
    return _cache(model, images, texts, chunk, scale_share=lambda place, count: 1.0)


def mended_cache__scale_never(model, images, texts, chunk):
    """No gradient for the scale. Belief: it comes from the loss, which was done already."""
    return _cache(model, images, texts, chunk, scale_share=lambda place, count: 0.0)


def mended_cache__the_last_chunk_lost(model, images, texts, chunk):
    """Whole chunks only. Belief: a batch is a multiple of its chunks."""
    return _cache(model, images, texts, chunk, skip=1)


def mended_cache__mean_over_chunks(model, images, texts, chunk):
    """Divides by the number of chunks. Belief: the loss is a mean, so the chunks' gradients are averaged."""
    return _cache(model, images, texts, chunk, weight=1 / math.ceil(len(images) / chunk))


def mended_cache__one_seed_for_all(model, images, texts, chunk):
    """Seeds before each chunk, both times. Belief: what matters is that both passes agree."""

    def seeded(*pairs):
        torch.manual_seed(0)
        return model(*pairs)

    return _cache(seeded, images, texts, chunk)


def mended_cache__negatives_within_chunks(model, images, texts, chunk):
    """Accumulates the chunks' own losses. Belief: the sum of the parts is the whole."""
    total = 0
    for pairs in zip(images.split(chunk), texts.split(chunk)):
        loss = minclip.contrastive_loss(*model(*pairs)) * len(pairs[0]) / len(images)
        loss.backward()
        total = total + loss.detach()
    return total


def mended_cache__all_graphs_kept(model, images, texts, chunk):
    """One graph of all chunks. Belief: embedding in chunks is what saves the memory."""
    parts = [model(*pairs) for pairs in zip(images.split(chunk), texts.split(chunk))]
    loss = minclip.contrastive_loss(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), parts[0][2])
    loss.backward()
    return loss.detach()


def mended_cache__without_dropout(model, images, texts, chunk):
    """Switches dropout off. Belief: then both passes agree, and nothing is lost."""
    model.eval()
    loss = _cache(model, images, texts, chunk)
    model.train()
    return loss


def mended_cache__one_backward_for_all_chunks(model, images, texts, chunk):
    """Adds up all chunks before it goes back. Belief: the first pass alone must save memory."""
    chunks = list(zip(images.split(chunk), texts.split(chunk)))
    states, features = [], []
    with torch.no_grad():
        for pairs in chunks:
            states.append(torch.get_rng_state())
            features.append(model(*pairs))
    u, v, scales = zip(*features)
    inputs = [t.clone().requires_grad_() for t in (torch.cat(u), torch.cat(v), scales[0])]
    loss = minclip.contrastive_loss(*inputs)
    of_u, of_v, of_scale = torch.autograd.grad(loss, inputs)
    total = 0
    for state, pairs, a, b in zip(states, chunks, of_u.split(chunk), of_v.split(chunk)):
        torch.set_rng_state(state)
        u, v, scale = model(*pairs)
        total = total + (u * a).sum() + (v * b).sum() + scale * of_scale / len(chunks)
    total.backward()
    return loss.detach()


def mended_cache__back_to_the_seed(model, images, texts, chunk):
    """Seeds again with the seed that was set last. Belief: nothing was drawn since."""
    first = torch.initial_seed()
    chunks = list(zip(images.split(chunk), texts.split(chunk)))
    with torch.no_grad():
        u, v, scales = zip(*[model(*pairs) for pairs in chunks])
    inputs = [t.clone().requires_grad_() for t in (torch.cat(u), torch.cat(v), scales[0])]
    loss = minclip.contrastive_loss(*inputs)
    of_u, of_v, of_scale = torch.autograd.grad(loss, inputs)
    torch.manual_seed(first)
    for pairs, a, b in zip(chunks, of_u.split(chunk), of_v.split(chunk)):
        torch.autograd.backward(model(*pairs), [a, b, of_scale / len(chunks)])
    return loss.detach()


def mended_cache__right_by_checkpointing(model, images, texts, chunk):
    parts = [
        torch.utils.checkpoint.checkpoint(model, *pairs, use_reentrant=False)
        for pairs in zip(images.split(chunk), texts.split(chunk))
    ]
    loss = minclip.contrastive_loss(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), parts[0][2])
    loss.backward()
    return loss.detach()


# 5. Which share of the machine?


def utilisation__right_item_by_item(pairs, seconds, forward_flops, embed_dim, peak):
    available = seconds * peak
    encoders, product = pairs * forward_flops, 2 * embed_dim * pairs * pairs
    needed = encoders + 2 * encoders + product + 2 * product
    return needed / available, (needed + encoders + product) / available


def _shares(pairs, seconds, forward_flops, embed_dim, peak, encoders=(3, 4), loss=(3, 4)):
    part, product = forward_flops * pairs, 2 * pairs**2 * embed_dim
    return tuple((e * part + p * product) / seconds / peak for e, p in zip(encoders, loss))


def utilisation__backward_counts_once(pairs, seconds, forward_flops, embed_dim, peak):
    """Forward and backward are two. Belief: backward is forward in reverse."""
    return _shares(pairs, seconds, forward_flops, embed_dim, peak, (2, 3), (2, 3))


def utilisation__without_the_loss(pairs, seconds, forward_flops, embed_dim, peak):
    """Encoders alone. Belief: a loss is one number and costs nothing."""
    return _shares(pairs, seconds, forward_flops, embed_dim, peak, loss=(0, 0))


def utilisation__loss_made_once(pairs, seconds, forward_flops, embed_dim, peak):
    """Similarities are made once. Belief: only the encoders are replayed."""
    return _shares(pairs, seconds, forward_flops, embed_dim, peak, loss=(3, 3))


def utilisation__both_directions(pairs, seconds, forward_flops, embed_dim, peak):
    """Two matrices of similarities. Belief: each direction of the loss has its own."""
    return _shares(pairs, seconds, forward_flops, embed_dim, peak, loss=(6, 8))


def utilisation__multiply_adds(pairs, seconds, forward_flops, embed_dim, peak):
    """A multiplication and its addition as one. Belief: machines do them together, so they count once."""
    return _shares(pairs, seconds, forward_flops, embed_dim, peak, loss=(1.5, 2))


def utilisation__loss_grows_with_the_batch(pairs, seconds, forward_flops, embed_dim, peak):
    """N E for the loss, not N squared E. Belief: each pair has one similarity."""
    needed = 3 * pairs * (forward_flops + 2 * embed_dim)
    return needed / seconds / peak, 4 / 3 * needed / seconds / peak


def utilisation__time_upside_down(pairs, seconds, forward_flops, embed_dim, peak):
    """Multiplies by the seconds. Belief: longer steps use the machine more."""
    return tuple(share * seconds**2 for share in _shares(pairs, seconds, forward_flops, embed_dim, peak))

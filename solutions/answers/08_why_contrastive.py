"""Answers to the exercises on objectives: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

# 1. A caption's likelihood


def caption_log_likelihood__right_by_cross_entropy(logits, tokens):
    targets = tokens[:, 1:].clone()
    for row, end in zip(targets, tokens.argmax(dim=1)):
        row[end:] = -100
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none", ignore_index=-100)
    return -losses.sum(dim=1)


def caption_log_likelihood__right_row_by_row(logits, tokens):
    found = []
    for scores, row in zip(logits, tokens):
        words = row[1 : row.argmax() + 1]
        log_p = scores[: len(words)] - scores[: len(words)].logsumexp(dim=1, keepdim=True)
        found.append(log_p[torch.arange(len(words)), words].sum())
    return torch.stack(found)


def _likelihood(logits, tokens, first=1, beyond=0, shift=1, dim=-1, mean=False):
    following = tokens[:, shift:]
    log_p = logits[:, : following.shape[1]].log_softmax(dim=dim).gather(2, following.unsqueeze(2)).squeeze(2)
    place = torch.arange(shift, tokens.shape[1])
    kept = (place >= first) & (place <= tokens.argmax(dim=1, keepdim=True) + beyond)
    total = log_p.masked_fill(~kept, 0.0).sum(dim=1)
    return total / kept.sum(dim=1) if mean else total


def caption_log_likelihood__not_shifted(logits, tokens):
    """Looks each token up at its own place. Belief: logits at a place are about the token that stands there."""
    return _likelihood(logits, tokens, shift=0)


def caption_log_likelihood__without_its_end(logits, tokens):
    """Leaves end-of-text out. Belief: only words count (then each caption is as likely as all that begin with it)."""
    return _likelihood(logits, tokens, beyond=-1)


def caption_log_likelihood__with_padding(logits, tokens):
    """Sums over every place. Belief: padding adds nothing."""
    return _likelihood(logits, tokens, beyond=10**6)


def caption_log_likelihood__a_mean(logits, tokens):
    """Divides by the number of tokens. Belief: a likelihood should not depend on the length."""
    return _likelihood(logits, tokens, mean=True)


def caption_log_likelihood__softmax_over_places(logits, tokens):
    """Softmax along the caption. Belief: any axis will do."""
    return _likelihood(logits, tokens, dim=1)


def caption_log_likelihood__log_of_the_mean(logits, tokens):
    """Adds probabilities before it takes the logarithm. Belief: the two may be exchanged."""
    p = logits[:, :-1].softmax(dim=-1).gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2)
    place = torch.arange(1, tokens.shape[1])
    return p.masked_fill(place > tokens.argmax(dim=1, keepdim=True), 0.0).sum(dim=1).log()


def caption_log_likelihood__exponentials_that_overflow(logits, tokens):
    """Divides exponentials. Belief: the formula is the program (logits of 2000 give NaN)."""
    p = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    log_p = p[:, :-1].gather(2, tokens[:, 1:].unsqueeze(2)).squeeze(2).log()
    place = torch.arange(1, tokens.shape[1])
    return log_p.masked_fill(place > tokens.argmax(dim=1, keepdim=True), 0.0).sum(dim=1)


def caption_log_likelihood__detached(logits, tokens):
    """Hands out numbers without their graph. Belief: a likelihood is a number to compare."""
    return caption_log_likelihood__right_by_cross_entropy(logits, tokens).detach()


def caption_log_likelihood__the_end_is_the_last_id(logits, tokens):
    """Looks for the vocabulary's last id. Belief: end-of-text is the largest id there is, in any vocabulary."""
    log_p = logits[:, :-1].log_softmax(dim=-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    end = (tokens == logits.shape[-1] - 1).int().argmax(dim=1, keepdim=True)
    return log_p.masked_fill(torch.arange(1, tokens.shape[1]) > end, 0.0).sum(dim=1)


def caption_log_likelihood__normaliser_without_gradient(logits, tokens):
    """Computes the normaliser under no_grad. Belief: it is a constant, as in physics."""
    with torch.no_grad():
        normaliser = logits.logsumexp(dim=-1)
    log_p = logits[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2) - normaliser[:, :-1]
    return log_p.masked_fill(torch.arange(1, tokens.shape[1]) > tokens.argmax(dim=1, keepdim=True), 0.0).sum(dim=1)


def caption_log_likelihood__less_the_largest_of_all(logits, tokens):
    """Subtracts one number from all logits. Belief: whatever keeps the exponentials small is enough."""
    logits = logits - logits.max().detach()
    log_p = logits - logits.exp().sum(dim=-1, keepdim=True).log()
    log_p = log_p[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)
    return log_p.masked_fill(torch.arange(1, tokens.shape[1]) > tokens.argmax(dim=1, keepdim=True), 0.0).sum(dim=1)


def caption_log_likelihood__marked_in_place(logits, tokens):
    """Marks what cross_entropy is to ignore in the caller's tokens. Belief: a slice is a copy."""
    following = tokens[:, 1:]
    for row, end in zip(following, tokens.argmax(dim=1)):
        row[end:] = -100
    return -F.cross_entropy(logits[:, :-1].transpose(1, 2), following, ignore_index=-100, reduction="none").sum(dim=1)


# 2. The loss of a bag


def bag_loss__right_by_shares(logits, tokens):
    shares = torch.zeros_like(logits)
    for share, row in zip(shares, tokens):
        words = row[1 : row.argmax()]
        share.index_add_(0, words, torch.full((len(words),), 1 / len(words), dtype=share.dtype))
    return F.cross_entropy(logits, shares)


def bag_loss__right_by_loops(logits, tokens):
    losses = []
    for scores, row in zip(logits, tokens):
        words = row[1 : row.argmax()]
        losses.append(scores.logsumexp(dim=0) - scores[words].mean())
    return sum(losses) / len(losses)


def _bag(logits, tokens, first=1, beyond=0, total=False, once=False):
    losses = []
    for scores, row in zip(logits, tokens):
        words = row[first : row.argmax() + beyond]
        words = words.unique() if once else words
        losses.append((scores.logsumexp(dim=0) - scores[words]).sum() / (1 if total else len(words)))
    return sum(losses) / len(losses)


def bag_loss__with_the_end(logits, tokens):
    """Counts end-of-text among the words. Belief: it is a token like any other."""
    return _bag(logits, tokens, beyond=1)


def bag_loss__with_the_start(logits, tokens):
    """Counts start-of-text among the words. Belief: a caption begins at place 0."""
    return _bag(logits, tokens, first=0)


def bag_loss__a_sum_of_words(logits, tokens):
    """Adds the words up. Belief: a long caption should weigh more."""
    return _bag(logits, tokens, total=True)


def bag_loss__each_word_once(logits, tokens):
    """Counts different words. Belief: a bag is a set."""
    return _bag(logits, tokens, once=True)


def bag_loss__one_sigmoid_a_word(logits, tokens):
    """Asks of each word of the vocabulary whether it is there. Belief: several right answers rule a softmax out."""
    present = torch.zeros_like(logits)
    for target, row in zip(present, tokens):
        target[row[1 : row.argmax()]] = 1
    return F.binary_cross_entropy_with_logits(logits, present)


def bag_loss__over_all_words_of_the_batch(logits, tokens):
    """One mean over all words. Belief: a mean of means is the mean."""
    nats = []
    for scores, row in zip(logits, tokens):
        words = row[1 : row.argmax()]
        nats.append(scores.logsumexp(dim=0) - scores[words])
    return torch.cat(nats).mean()


def bag_loss__detached(logits, tokens):
    """Hands out numbers without their graph. Belief: a loss is a number."""
    return bag_loss__right_by_shares(logits, tokens).detach()


def bag_loss__the_end_is_the_last_id(logits, tokens):
    """Looks for the vocabulary's last id. Belief: end-of-text is the largest id there is, in any vocabulary."""
    place = torch.arange(tokens.shape[1])
    end = (tokens == logits.shape[1] - 1).int().argmax(dim=1, keepdim=True)
    words = ((place > 0) & (place < end)).to(logits.dtype)
    log_p = logits.log_softmax(dim=1).gather(1, tokens)
    return -((words * log_p).sum(dim=1) / words.sum(dim=1)).mean()


def bag_loss__less_the_largest_of_all(logits, tokens):
    """Subtracts one number from all logits. Belief: whatever keeps the exponentials small is enough."""
    place = torch.arange(tokens.shape[1])
    words = ((place > 0) & (place < tokens.argmax(dim=1, keepdim=True))).to(logits.dtype)
    logits = logits - logits.max()
    log_p = (logits - logits.exp().sum(dim=1, keepdim=True).log()).gather(1, tokens)
    return -(torch.where(words > 0, log_p, 0).sum(dim=1) / words.sum(dim=1)).mean()


# 3. Which name is it?


def bag_scores__right_by_xlogy(log_p, bags):
    return -(torch.special.xlogy(bags, bags) - bags * log_p.unsqueeze(1)).sum(dim=2)


def bag_scores__right_by_kl_div(log_p, bags):
    rows = [torch.stack([-F.kl_div(row, bag, reduction="sum") for bag in bags]) for row in log_p]
    return torch.stack(rows)


def bag_scores__the_mean_alone(log_p, bags):
    """Σ q log p, without the entropy. Belief: what does not depend on the picture cannot matter (it depends on the name)."""
    return log_p @ bags.T


def bag_scores__the_sum(log_p, bags):
    """Adds log p over the words. Belief: a bag is a sentence, and each word a factor."""
    return log_p @ (bags > 0).to(log_p.dtype).T


def bag_scores__the_other_direction(log_p, bags):
    """-KL(p‖q). Belief: a divergence is symmetric (words that a name lacks make it infinite)."""
    p = log_p.exp()
    return (p * log_p).sum(dim=1, keepdim=True).neg() + p @ (bags + 1e-12).log().T


def bag_scores__entropy_taken_off(log_p, bags):
    """Σ q log p less the entropy. Belief: a penalty for long names."""
    return log_p @ bags.T - torch.special.entr(bags).sum(dim=1)


def bag_scores__without_the_minus(log_p, bags):
    """The divergence itself. Belief: the sign is a matter of taste (then the furthest name wins)."""
    return -(log_p @ bags.T + torch.special.entr(bags).sum(dim=1))


def bag_scores__nought_times_infinity(log_p, bags):
    """q log q as it is written. Belief: 0 · log 0 is 0 to a computer, too."""
    return -((bags * (bags.log() - log_p.unsqueeze(1))).sum(dim=2))


def bag_scores__clamped_in_place(log_p, bags):
    """Replaces noughts where they lie. Belief: 1e-12 harms nobody."""
    bags.clamp_(min=1e-12)
    return log_p @ bags.T - (bags * bags.log()).sum(dim=1)


# 4. How many times the pictures?


def pictures_factor__right_by_interp(slow_pictures, slow_accuracy, fast_pictures, fast_accuracy):
    level = min(max(slow_accuracy), max(fast_accuracy))

    def needed(pictures, accuracy):
        best = np.maximum.accumulate(accuracy)
        if level <= best[0]:
            return pictures[0]
        i = int(np.argmax(best >= level))
        return math.exp(np.interp(level, [accuracy[i - 1], accuracy[i]], np.log([pictures[i - 1], pictures[i]])))

    return float(needed(slow_pictures, slow_accuracy) / needed(fast_pictures, fast_accuracy))


def _factor(curves, level, between="log", first=True, upside_down=False):
    counts = []
    for pictures, accuracy in (curves[:2], curves[2:]):
        reached = [i for i, a in enumerate(accuracy) if a >= level] or [len(accuracy) - 1]
        i = reached[0] if first else reached[-1]
        a, b = pictures[max(0, i - 1)], pictures[i]
        if i == 0 or between == "next":
            counts.append(b)
            continue
        low, high = accuracy[i - 1], accuracy[i]
        part = (level - low) / (high - low) if high != low else 1.0
        counts.append(a * (b / a) ** part if between == "log" else a + part * (b - a))
    return float(counts[1] / counts[0] if upside_down else counts[0] / counts[1])


def pictures_factor__on_a_linear_scale(*curves):
    """Straight between points over pictures. Belief: a straight line is a straight line on any axis."""
    return _factor(curves, min(max(curves[1]), max(curves[3])), between="linear")


def pictures_factor__the_next_point(*curves):
    """Takes the first measured point that is good enough. Belief: between points nothing is known."""
    return _factor(curves, min(max(curves[1]), max(curves[3])), between="next")


def pictures_factor__upside_down(*curves):
    """Fast over slow. Belief: the faster one comes first."""
    return _factor(curves, min(max(curves[1]), max(curves[3])), upside_down=True)


def pictures_factor__at_the_last_points(*curves):
    """Reads the level at the end of each curve. Belief: curves only rise."""
    return _factor(curves, min(curves[1][-1], curves[3][-1]))


def pictures_factor__at_the_best_of_all(*curves):
    """Reads at the higher of the two best. Belief: the better one sets the goal (the other never gets there)."""
    return _factor(curves, max(max(curves[1]), max(curves[3])))


def pictures_factor__of_accuracies(slow_pictures, slow_accuracy, fast_pictures, fast_accuracy):
    """Divides the best accuracies. Belief: 4x as efficient is 4x as accurate."""
    return float(max(fast_accuracy) / max(slow_accuracy))


def pictures_factor__right_in_single_precision(slow_pictures, slow_accuracy, fast_pictures, fast_accuracy):
    level = min(max(slow_accuracy), max(fast_accuracy))

    def log_needed(pictures, accuracy):
        pictures, accuracy = torch.tensor(pictures).log(), torch.tensor(accuracy)
        i = int((accuracy >= level - 1e-7).int().argmax())
        if i == 0:
            return pictures[0]
        part = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
        return pictures[i - 1] + part * (pictures[i] - pictures[i - 1])

    return float((log_needed(slow_pictures, slow_accuracy) - log_needed(fast_pictures, fast_accuracy)).exp())


def pictures_factor__from_the_best_so_far(slow_pictures, slow_accuracy, fast_pictures, fast_accuracy):
    """Lets no curve fall. Belief: a model cannot unlearn, so a dip is noise."""
    best = [np.maximum.accumulate(accuracy).tolist() for accuracy in (slow_accuracy, fast_accuracy)]
    return _factor((slow_pictures, best[0], fast_pictures, best[1]), min(max(best[0]), max(best[1])))


def pictures_factor__at_a_measured_point(slow_pictures, slow_accuracy, fast_pictures, fast_accuracy):
    """Reads at the slow curve's own points. Belief: between two points nothing is known."""
    common = [accuracy for accuracy in slow_accuracy if accuracy <= max(fast_accuracy)]
    level = max(common, default=min(max(slow_accuracy), max(fast_accuracy)))
    return _factor((slow_pictures, slow_accuracy, fast_pictures, fast_accuracy), level)


# 5. What a classification costs


def captions_read__right_by_loops(pictures, classes, templates, captioner):
    read = 0 if captioner else classes * templates
    for count in pictures:
        read += count * classes * templates * captioner
    return read


def captions_read__a_classifier_for_each_set(pictures, classes, templates, captioner):
    """Builds the classifier anew for each set. Belief: it belongs to the pictures."""
    return classes * templates * (sum(pictures) if captioner else len(pictures))


def captions_read__both_alike(pictures, classes, templates, captioner):
    """Every name for every picture, in both. Belief: a contrastive model compares pictures with texts, so it reads them."""
    return classes * templates * sum(pictures)


def captions_read__templates_averaged_first(pictures, classes, templates, captioner):
    """Forgets the templates. Belief: an ensemble costs nothing (when pictures come; the names are read all the same)."""
    return classes * (sum(pictures) if captioner else 1)


def captions_read__the_right_class_alone(pictures, classes, templates, captioner):
    """One caption a picture. Belief: only the class that is named must be read."""
    return templates * (sum(pictures) if captioner else classes)


def captions_read__added_up(pictures, classes, templates, captioner):
    """Pictures plus captions. Belief: a captioner encodes N pictures and K names, as a contrastive model does."""
    return classes * templates + (sum(pictures) if captioner else 0)

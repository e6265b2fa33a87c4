"""Answers to the exercises on zero-shot classification: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import math

import torch
import torch.nn.functional as F

# 1. Probabilities of named classes


def class_probabilities__right_by_cosine_similarity(image_features, class_features, logit_scale):
    cosines = F.cosine_similarity(image_features[:, None, :], class_features[None], dim=2)
    return F.softmax(cosines * logit_scale, dim=-1)


def class_probabilities__right_by_exponentials(image_features, class_features, logit_scale):
    products = torch.einsum("ne,ke->nk", image_features, class_features)
    lengths = image_features.norm(dim=1, keepdim=True) * class_features.norm(dim=1)
    logits = logit_scale * products / lengths
    weights = (logits - logits.max(dim=1, keepdim=True).values).exp()
    return weights / weights.sum(dim=1, keepdim=True)


def _cosines(image_features, class_features):
    return F.normalize(image_features, dim=-1) @ F.normalize(class_features, dim=-1).T


def class_probabilities__over_pictures(image_features, class_features, logit_scale):
    """Softmax down the columns. Belief: each class shares itself among the pictures."""
    return (logit_scale * _cosines(image_features, class_features)).softmax(dim=0)


def class_probabilities__not_normalised(image_features, class_features, logit_scale):
    """Dot products of raw features. Belief: features come with length 1."""
    return (logit_scale * image_features @ class_features.T).softmax(dim=1)


def class_probabilities__pictures_normalised_alone(image_features, class_features, logit_scale):
    """Class features keep their lengths. Belief: names are all equally long in feature space."""
    return (logit_scale * F.normalize(image_features, dim=-1) @ class_features.T).softmax(dim=1)


def class_probabilities__scale_forgotten(image_features, class_features, logit_scale):
    """Softmax of the cosines. Belief: the scale is for training."""
    return _cosines(image_features, class_features).softmax(dim=1)


def class_probabilities__scale_divides(image_features, class_features, logit_scale):
    """Divides by the scale. Belief: it is a temperature."""
    return (_cosines(image_features, class_features) / logit_scale).softmax(dim=1)


def class_probabilities__sigmoid(image_features, class_features, logit_scale):
    """Each class by itself. Belief: classes do not compete."""
    return (logit_scale * _cosines(image_features, class_features)).sigmoid()


def class_probabilities__softmax_twice(image_features, class_features, logit_scale):
    """Softmax of a softmax. Belief: once more does no harm."""
    return (logit_scale * _cosines(image_features, class_features)).softmax(dim=1).softmax(dim=1)


def class_probabilities__overflows(image_features, class_features, logit_scale):
    """Exponentials as they stand. Belief: logits are never larger than 88."""
    weights = (logit_scale * _cosines(image_features, class_features)).exp()
    return weights / weights.sum(dim=1, keepdim=True)


def class_probabilities__in_place(image_features, class_features, logit_scale):
    """Normalises the caller's tensors. Belief: `/=` is a shorter way to write the same."""
    image_features /= image_features.norm(dim=1, keepdim=True)
    class_features /= class_features.norm(dim=1, keepdim=True)
    return (logit_scale * image_features @ class_features.T).softmax(dim=1)


def class_probabilities__scale_clamped(image_features, class_features, logit_scale):
    """Keeps the scale at 100. Belief: where the paper clips is part of the function."""
    return (min(logit_scale, 100.0) * _cosines(image_features, class_features)).softmax(dim=1)


# 2. A prompt ensemble


def ensemble_classifier__right_class_by_class(encode_text, class_names, templates):
    columns = []
    for name in class_names:
        features = encode_text([template.replace("{}", name) for template in templates])
        features = features / features.norm(dim=1, keepdim=True)
        total = features.sum(dim=0)
        columns.append(total / total.norm())
    return torch.stack(columns, dim=1)


def ensemble_classifier__right_template_by_template(encode_text, class_names, templates):
    total = 0
    for template in templates:
        total = total + F.normalize(encode_text([template.format(name) for name in class_names]), dim=1)
    return F.normalize(total.T, dim=0)


def _captions(class_names, templates):
    return [template.format(name) for name in class_names for template in templates]


def ensemble_classifier__not_normalised_before(encode_text, class_names, templates):
    """Averages raw features, so long ones count more. Belief: normalising at the end is enough."""
    features = encode_text(_captions(class_names, templates)).view(len(class_names), len(templates), -1)
    return F.normalize(features.mean(dim=1), dim=-1).T


def ensemble_classifier__not_normalised_after(encode_text, class_names, templates):
    """Leaves the means as they are. Belief: a mean of unit vectors is a unit vector."""
    features = F.normalize(encode_text(_captions(class_names, templates)), dim=-1)
    return features.view(len(class_names), len(templates), -1).mean(dim=1).T


def ensemble_classifier__mixed_up_classes(encode_text, class_names, templates):
    """Captions template by template, grouped as if class by class. Belief: view(K, T) knows which is which."""
    captions = [template.format(name) for template in templates for name in class_names]
    features = F.normalize(encode_text(captions), dim=-1)
    return F.normalize(features.view(len(class_names), len(templates), -1).mean(dim=1), dim=-1).T


def ensemble_classifier__first_template_alone(encode_text, class_names, templates):
    """One prompt. Belief: the others say the same."""
    features = encode_text([templates[0].format(name) for name in class_names])
    return F.normalize(features, dim=-1).T


def ensemble_classifier__a_column_a_caption(encode_text, class_names, templates):
    """No mean. Belief: the classifier may have K x T classes."""
    return F.normalize(encode_text(_captions(class_names, templates)), dim=-1).T


def ensemble_classifier__rows(encode_text, class_names, templates):
    """Not transposed. Belief: (K, E) and (E, K) are told apart later."""
    features = F.normalize(encode_text(_captions(class_names, templates)), dim=-1)
    return F.normalize(features.view(len(class_names), len(templates), -1).mean(dim=1), dim=-1)


def ensemble_classifier__normalised_along_classes(encode_text, class_names, templates):
    """Normalises the wrong way at the end. Belief: after the transpose, dim=-1 is still the feature."""
    features = F.normalize(encode_text(_captions(class_names, templates)), dim=-1)
    return F.normalize(features.view(len(class_names), len(templates), -1).mean(dim=1).T, dim=-1)


def ensemble_classifier__names_formatted_again(encode_text, class_names, templates):
    """Formats the caption with the per cent operator as well. Belief: names are plain words."""
    captions = [template.replace("{}", "%s") % name for name in class_names for template in templates]
    captions = [caption.replace("%s", "") if "%s" in caption else caption for caption in captions]
    features = F.normalize(encode_text(captions), dim=-1)
    return F.normalize(features.view(len(class_names), len(templates), -1).mean(dim=1), dim=-1).T


def ensemble_classifier__names_in_small_letters(encode_text, class_names, templates):
    """Lowers the names. Belief: the tokenizer does so anyway."""
    return ensemble_classifier__right_class_by_class(encode_text, [name.lower() for name in class_names], templates)


def ensemble_classifier__names_tidied(encode_text, class_names, templates):
    """Replaces underscores and strips spaces. Belief: names come from files."""
    tidied = [name.replace("_", " ").strip() for name in class_names]
    return ensemble_classifier__right_class_by_class(encode_text, tidied, templates)


# 3. Top-k accuracy


def top_k_accuracy__right_by_rank(scores, labels, k):
    own = scores.gather(1, labels[:, None])
    return ((scores > own).sum(dim=1) < k).double().mean().item()


def top_k_accuracy__right_in_a_loop(scores, labels, k):
    hits = [label in row.argsort(descending=True)[:k].tolist() for row, label in zip(scores, labels.tolist())]
    return sum(hits) / len(hits)


def top_k_accuracy__the_lowest(scores, labels, k):
    """The k lowest. Belief: scores are distances."""
    best = scores.topk(min(k, scores.shape[1]), dim=1, largest=False).indices
    return (best == labels[:, None]).any(dim=1).float().mean().item()


def top_k_accuracy__share_of_all_comparisons(scores, labels, k):
    """The mean over N x k comparisons. Belief: mean() means over pictures."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).float().mean().item()


def top_k_accuracy__top_1_always(scores, labels, k):
    """Ignores k. Belief: accuracy is accuracy."""
    return (scores.argmax(dim=1) == labels).float().mean().item()


def top_k_accuracy__the_kth_alone(scores, labels, k):
    """Looks at place k only. Belief: top-5 is the fifth."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return (best[:, -1] == labels).float().mean().item()


def top_k_accuracy__one_too_many(scores, labels, k):
    """At most k ahead. Belief: place k counts from 0 or from 1 alike."""
    own = scores.gather(1, labels[:, None])
    return ((scores > own).sum(dim=1) <= k).double().mean().item()


def top_k_accuracy__values_for_indices(scores, labels, k):
    """Compares scores with labels. Belief: topk returns indices."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).values
    return (best == labels[:, None]).any(dim=1).float().mean().item()


def top_k_accuracy__a_count(scores, labels, k):
    """The number of hits. Belief: whoever reads it knows N."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(dim=1).sum().item())


def top_k_accuracy__k_above_the_classes(scores, labels, k):
    """Has no answer for k above K. Belief: nobody asks for the top 5 of 3."""
    best = scores.topk(k, dim=1).indices
    return (best == labels[:, None]).any(dim=1).float().mean().item()


# 4. Recall at k, with ties


def recall_at_k__right_by_places(similarity, k):
    def one_way(rows):
        hits = 0
        for i, row in enumerate(rows):
            better, equal = (row > row[i]).sum().item(), (row == row[i]).sum().item() - 1
            hits += better + equal / 2 < k
        return hits / len(rows)

    return one_way(similarity), one_way(similarity.T)


def recall_at_k__right_by_signs(similarity, k):
    match = similarity.diagonal()

    def one_way(others, dim):
        n = others.shape[dim]  # sum of signs: those ahead less those behind
        return ((torch.sign(others).sum(dim) + n - 1) / 2 < k).double().mean().item()

    return one_way(similarity - match[:, None], 1), one_way(similarity - match[None, :], 0)


def _both(similarity, one_way):
    return one_way(similarity), one_way(similarity.T)


def _share(hits):
    return hits.float().mean().item()


def recall_at_k__ties_won(similarity, k):
    """Only strictly better ones stand ahead. Belief: a tie is a hit; collapsed features then score 100%."""
    return _both(similarity, lambda rows: _share((rows > rows.diagonal()[:, None]).sum(1) < k))


def recall_at_k__ties_lost(similarity, k):
    """Equal ones all stand ahead. Belief: a tie is a miss."""
    return _both(similarity, lambda rows: _share((rows >= rows.diagonal()[:, None]).sum(1) - 1 < k))


def recall_at_k__by_topk(similarity, k):
    """Leaves ties to topk. Belief: it breaks them at random (it does so by position, as it likes)."""

    def one_way(rows):
        best = rows.topk(min(k, len(rows)), dim=1).indices
        return _share((best == torch.arange(len(rows))[:, None]).any(dim=1))

    return _both(similarity, one_way)


def recall_at_k__one_direction(similarity, k):
    """Pictures to captions, twice. Belief: the matrix is symmetric."""
    match = similarity.diagonal()[:, None]
    ahead = (similarity > match).sum(1) + ((similarity == match).sum(1) - 1) / 2
    return _share(ahead < k), _share(ahead < k)


def _recall(rows, k):
    match = rows.diagonal()[:, None]
    return _share((rows > match).sum(1) + ((rows == match).sum(1) - 1) / 2 < k)


def recall_at_k__directions_swapped(similarity, k):
    """Text to image first. Belief: a row is a caption."""
    return _recall(similarity.T, k), _recall(similarity, k)


def recall_at_k__match_ties_with_itself(similarity, k):
    """Counts the match among its equals. Belief: half of one more does not matter."""

    def one_way(rows):
        match = rows.diagonal()[:, None]
        return _share((rows > match).sum(1) + (rows == match).sum(1) / 2 < k)

    return _both(similarity, one_way)


def recall_at_k__one_too_many(similarity, k):
    """At most k ahead. Belief: place k counts from 0 or from 1 alike."""

    def one_way(rows):
        match = rows.diagonal()[:, None]
        return _share((rows > match).sum(1) + ((rows == match).sum(1) - 1) / 2 <= k)

    return _both(similarity, one_way)


def recall_at_k__columns_against_the_pictures_match(similarity, k):
    """Broadcasts the match along the wrong axis for captions. Belief: the diagonal is the same either way."""
    match = similarity.diagonal()[:, None]
    ahead = (similarity > match).sum(0) + ((similarity == match).sum(0) - 1) / 2
    return _recall(similarity, k), _share(ahead < k)


def recall_at_k__nearly_equal_is_equal(similarity, k):
    """Ties within a tolerance. Belief: close floating-point numbers are the same number."""

    def one_way(rows):
        match = rows.diagonal()[:, None]
        equal = torch.isclose(rows, match, atol=1e-6)
        return _share(((rows > match) & ~equal).sum(1) + (equal.sum(1) - 1) / 2 < k)

    return _both(similarity, one_way)


# 6. The same model among fewer names


def predicted_accuracy__right_one_after_the_other(ahead, total, k):
    accuracy = 0.0
    for n in ahead:
        chance = 1.0
        for place in range(k - 1):
            chance *= max(0, total - 1 - int(n) - place) / (total - 1 - place)
        accuracy += chance / len(ahead)
    return float(accuracy)


def predicted_accuracy__drawn_again(ahead, total, k):
    """Each place of the list by itself. Belief: a list may hold a name twice (good for short lists of many names)."""
    return sum((1 - int(n) / (total - 1)) ** (k - 1) for n in ahead) / len(ahead) if total > 1 else 1.0


def predicted_accuracy__own_name_drawn_too(ahead, total, k):
    """Draws all k names from all. Belief: the right name is one of them by chance."""
    lists = math.comb(total, k)
    return sum(math.comb(total - int(n), k) / lists for n in ahead) / len(ahead)


def predicted_accuracy__in_proportion_to_chance(ahead, total, k):
    """Scales the accuracy by chance. Belief: a tenth of the candidates, ten times the accuracy."""
    among_all = sum(int(n) == 0 for n in ahead) / len(ahead)
    return min(1.0, among_all * total / k)


def predicted_accuracy__top_of_the_large_test(ahead, total, k):
    """Top-k of the large test turned round. Belief: right among k means among the best total / k."""
    return sum(int(n) < total / k for n in ahead) / len(ahead)


def predicted_accuracy__of_the_mean_rank(ahead, total, k):
    """Averages the ranks first. Belief: the accuracy of the average is the average accuracy."""
    n = round(sum(map(int, ahead)) / len(ahead))
    return math.comb(total - 1 - n, k - 1) / math.comb(total - 1, k - 1)


def predicted_accuracy__by_factorials(ahead, total, k):
    """Divides factorials as floats. Belief: they are just numbers (171! is infinite)."""

    def lists(n, size):
        return 0.0 if size > n else math.gamma(n + 1) / math.gamma(size + 1) / math.gamma(n - size + 1)

    return sum(lists(total - 1 - int(n), k - 1) for n in ahead) / lists(total - 1, k - 1) / len(ahead)


def predicted_accuracy__right_in_single_precision(ahead, total, k):
    if not ahead:
        return 0.0
    wrong, place = torch.tensor(ahead), torch.arange(k - 1)
    still_below = (total - 1 - wrong[:, None] - place) / (total - 1 - place)
    return still_below.clamp(min=0).prod(dim=1).mean().item()

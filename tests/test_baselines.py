"""The objectives CLIP is compared with: each loss and each gradient against loops that spell it out."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import minclip
from minclip import CLIP, CLIPConfig, TrainConfig, baselines, contrastive_loss
from minclip.data.images import normalize

NAMES = ["latin small letter a", "black chess knight", "greek capital letter omega", "letter a", "a"]
OBJECTIVES = {
    "captioning": (CLIP, baselines.write_captions, baselines.caption_scores),
    "bag of words": (baselines.BagOfWordsCLIP, baselines.predict_words, baselines.word_scores),
    "contrastive bag of words": (baselines.BagOfWordsCLIP, baselines.match_captions, baselines.similarities),
    "contrastive": (CLIP, baselines.match_captions, baselines.similarities),
}


def new_model(kind: type[CLIP], tokenizer, **sizes) -> CLIP:
    torch.manual_seed(0)
    config = CLIPConfig(8, 32, 1, 16, 8, 32, tokenizer.vocab_size, 12, 2, 2, vision_heads=2)
    return kind(replace(config, **sizes))


def slow_words(tokens: torch.Tensor, tokenizer) -> list[int]:
    ids = tokens.tolist()
    return ids[1 : ids.index(tokenizer.end_of_text)]


def slow_captioning(model, images, tokens, tokenizer):
    """Each token's probability from the caption up to it alone: nothing behind it exists, and nothing is padded."""
    pictures, losses = model.encode_image(images, normalize=False), []
    for picture, row in zip(pictures, tokens):
        words = slow_words(row, tokenizer)
        for i, following in enumerate([*words, tokenizer.end_of_text]):
            x = torch.stack([model.text_projection @ picture, *(model.token_embedding.weight[w] for w in words[:i])])
            x = model.transformer((x + model.positional_embedding[: i + 1])[None])[0, -1]
            scores = torch.stack([model.ln_final(x) @ vector for vector in model.token_embedding.weight])
            losses.append(scores.exp().sum().log() - scores[following])
    return sum(losses) / len(losses)


def slow_word_prediction(model, images, tokens, tokenizer):
    losses = []
    for picture, row in zip(model.encode_image(images, normalize=False), tokens):
        scores = torch.stack([picture @ vector for vector in model.token_embedding.weight])
        words = slow_words(row, tokenizer)
        losses.append(sum(scores.exp().sum().log() - scores[word] for word in words) / len(words))
    return sum(losses) / len(losses)


def slow_bags_matched(model, images, tokens, tokenizer):
    bags = [sum(model.token_embedding.weight[w] for w in slow_words(row, tokenizer)) for row in tokens]
    texts = torch.stack([bag / bag.norm() for bag in bags])
    return contrastive_loss(model.encode_image(images), texts, model.logit_scale.exp())


@pytest.mark.parametrize(
    "name, slow",
    [("captioning", slow_captioning), ("bag of words", slow_word_prediction), ("contrastive bag of words", slow_bags_matched)],
)  # fmt: skip
def test_losses_and_gradients_are_those_of_plain_loops(name, slow, tokenizer):
    kind, objective, _ = OBJECTIVES[name]
    model = new_model(kind, tokenizer).double()
    with torch.no_grad():
        model.token_embedding.weight.mul_(30)  # or every word would be about as likely
    images, tokens = torch.randn(len(NAMES), 3, 32, 32, dtype=torch.float64), tokenizer(NAMES)
    gradients = []
    for loss in (objective(model, images, tokens), slow(model, images, tokens, tokenizer)):
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        gradients.append([loss, *(torch.zeros(()) if g is None else g for g in found)])
    assert sum(bool(g.any()) for g in gradients[0]) >= len(gradients[0]) - 1  # the scale alone may have none
    for fast, expected in zip(*gradients):
        torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-12)


def test_what_stands_behind_the_end_changes_nothing(tokenizer):
    images, tokens = torch.randn(len(NAMES), 3, 32, 32), tokenizer(NAMES)
    junk = tokens.clone()
    for row in junk:
        end = row.argmax()
        row[end + 1 :] = torch.randint(tokenizer.end_of_text, (len(row) - end - 1,))
    for kind, objective, scores in OBJECTIVES.values():
        model = new_model(kind, tokenizer)
        torch.testing.assert_close(objective(model, images, junk), objective(model, images, tokens))
        torch.testing.assert_close(scores(model, images, junk), scores(model, images, tokens))


def test_a_caption_is_as_likely_as_its_tokens_together(tokenizer):
    model = new_model(CLIP, tokenizer).double().eval()
    images, tokens = torch.randn(3, 3, 32, 32, dtype=torch.float64), tokenizer(NAMES)
    scores = baselines.caption_scores(model, images, tokens)
    for (i, image), (k, name) in itertools.product(enumerate(images), enumerate(NAMES)):
        alone = tokenizer([name])
        loss = baselines.write_captions(model, image[None], alone)  # a mean over its tokens, end-of-text included
        assert scores[i, k].item() == pytest.approx(-loss.item() * (alone.shape[1] - 1), rel=1e-9)


def test_a_bag_that_is_predicted_perfectly_beats_its_own_parts(tokenizer):
    """Three names, each holding all words of the one before: the mean log-probability alone could not tell them apart."""
    names = ["a", "letter a", "latin small letter a"]
    model, tokens = new_model(baselines.BagOfWordsCLIP, tokenizer, embed_dim=600), tokenizer(names)
    model.token_embedding.weight = torch.nn.Parameter(torch.eye(tokenizer.vocab_size, 600))
    bags = torch.zeros(len(names), 600)
    for bag, row in zip(bags, tokens):
        words = slow_words(row, tokenizer)
        for word in words:
            bag[word] += 1 / len(words)
    model.encode_image = lambda images, normalize: (bags + 1e-9).log()
    scores = baselines.word_scores(model, torch.zeros(3, 3, 32, 32), tokens)
    divergence = torch.tensor([[F.kl_div((p + 1e-9).log(), q, reduction="sum") for q in bags] for p in bags])
    torch.testing.assert_close(scores, -divergence, rtol=1e-4, atol=1e-4)
    assert scores.argmax(dim=1).tolist() == [0, 1, 2]
    assert scores.diagonal().abs().max() < 1e-4


class FourPictures:
    """A world of four names, each of one colour."""

    names, colours = NAMES[:4], torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])

    def batches(self, batch_size, seed, start):
        images = self.colours[:, :, None, None].expand(-1, -1, 32, 32)
        while True:
            yield images, self.names


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_to_name_what_it_saw(name, tokenizer):
    kind, objective, scores = OBJECTIVES[name]
    model, world = new_model(kind, tokenizer), FourPictures()
    losses = baselines.train(model, objective, tokenizer, world, TrainConfig(images_seen=800, batch_size=4, lr=1e-2))
    assert len(losses) == 200 and losses[-1] < losses[0] / 1.5
    assert not model.training
    model.train()  # which the scores leave as it was
    images = normalize(next(world.batches(4, 0, 0))[0])
    found = scores(model, images, tokenizer([*world.names, "digit one"]))
    assert found.shape == (4, 5) and found.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert model.training and not found.requires_grad


def test_an_untrained_model_guesses(tokenizer, atlas):
    """The right class's place among 26 is spread as chance has it."""
    letters = [f"latin capital letter {chr(c)}" for c in range(ord("a"), ord("z") + 1)]
    rows = [list(atlas.name).index(letter) for letter in letters]
    for kind, _, scores in OBJECTIVES.values():
        model = new_model(kind, tokenizer)
        found = scores(model, minclip.preprocess(atlas.pictures()[rows], model.config), tokenizer(letters))
        hits = (found.argmax(dim=1) == torch.arange(26)).sum()
        assert hits <= 5  # of 26, one expected; six or more in one case of two thousand


@pytest.mark.parametrize("name", OBJECTIVES)
def test_scores_are_those_of_the_model_in_use(name, tokenizer):
    kind, _, scores = OBJECTIVES[name]
    model = new_model(kind, tokenizer, vision_layers=(1, 1, 1, 1), vision_width=4, vision_patch_size=None)
    images, tokens = torch.randn(4, 3, 32, 32), tokenizer(NAMES)
    torch.testing.assert_close(scores(model.train(), images, tokens), scores(model.eval(), images, tokens))


def test_a_caption_without_words_is_no_nan(tokenizer):
    shares = baselines.word_shares(tokenizer(["", "a"]))
    assert shares[0].sum() == 0 and shares[1].sum() == 1


def test_the_loop_is_fits(tokenizer):
    """The contrastive objective in the short loop goes where `minclip.fit` goes, whatever holds it back."""
    for scale, config in (
        (14.0, TrainConfig(images_seen=40, batch_size=4, lr=1e-2)),
        (99.9, TrainConfig(images_seen=40, batch_size=4, lr=1e-1, clip_grad=1e-3, seed=3)),
    ):
        one, other = new_model(CLIP, tokenizer), new_model(CLIP, tokenizer)
        for model in (one, other):
            torch.nn.init.constant_(model.logit_scale, math.log(scale))
        losses = baselines.train(one, baselines.match_captions, tokenizer, FourPictures(), config)
        records = minclip.fit(other, tokenizer, FourPictures(), replace(config, log_every=1))
        assert losses == pytest.approx([record["loss"] for record in records], rel=1e-4)
        assert math.isclose(one.logit_scale.item(), other.logit_scale.item(), rel_tol=1e-4)


def test_the_scale_stays_below_100(tokenizer):
    model = new_model(CLIP, tokenizer)
    torch.nn.init.constant_(model.logit_scale, 6.0)
    baselines.train(
        model, baselines.match_captions, tokenizer, FourPictures(), TrainConfig(images_seen=4, batch_size=4)
    )
    assert model.logit_scale.exp().item() <= 100 * (1 + 1e-6)


def test_the_stream_is_that_of_the_seed(tokenizer):
    asked = []

    class Pairs(FourPictures):
        def batches(self, *place):
            asked.append(place)
            return super().batches(*place)

    model = new_model(CLIP, tokenizer)
    baselines.train(
        model, baselines.match_captions, tokenizer, Pairs(), TrainConfig(images_seen=4, batch_size=4, seed=7)
    )
    assert asked == [(4, 7, 0)]

"""Classifiers from names, and retrieval, against slow references and cases with a known answer."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from minclip import CLIP, CLIPConfig, MinclipError, preprocess, retrieval, zero_shot_classifier, zeroshot
from minclip.probe import probe_features
from minclip.zeroshot import CHUNK, accuracy, encode_images, encode_pictures, encode_texts, evaluating

NAMES = ["a cat", "two dogs", "no fox"]


def test_a_classifier_is_the_mean_of_its_captions_on_the_sphere(tiny, tokenizer):
    templates = ("{}", "a picture of {}", "{} on {}")
    classifier = zero_shot_classifier(tiny, tokenizer, NAMES, templates)
    assert classifier.shape == (8, 3)
    for column, name in zip(classifier.T, NAMES):
        captions = [name, f"a picture of {name}", f"{name} on {name}"]
        with torch.no_grad():
            rows = [tiny.encode_text(tokenizer([caption]))[0] for caption in captions]
        torch.testing.assert_close(column, F.normalize(sum(rows), dim=0))
    assert not classifier.requires_grad


def test_one_template_may_be_a_string_and_braces_in_names_and_templates_are_text(tiny, tokenizer):
    one = zero_shot_classifier(tiny, tokenizer, NAMES, "a {}")
    assert torch.equal(one, zero_shot_classifier(tiny, tokenizer, NAMES, ["a {}"]))
    odd = zero_shot_classifier(tiny, tokenizer, ["{0}", "{x"], "{photo} of {}")
    torch.testing.assert_close(odd.T, encode_texts(tiny, tokenizer, ["{photo} of {0}", "{photo} of {x"]))


@pytest.mark.parametrize(
    ("class_names", "complaint"),
    [
        ([], "empty"),
        (["a", " "], "Class 1 is named ' '"),
        (["a", None], "Class 1 is named None"),
        (["a", "b", "a"], "Classes 0 and 2 are both named 'a'"),
        (["Cat", "cat"], "Classes 0 and 1"),  # the tokenizer reads both alike
        (["a cat", "a  cat "], "Classes 0 and 1"),
        ("cat", "one string 'cat'"),  # not the classes c, a and t
    ],
)
def test_class_names_that_define_no_classes(tiny, tokenizer, class_names, complaint):
    with pytest.raises(MinclipError, match=complaint):
        zero_shot_classifier(tiny, tokenizer, class_names)


@pytest.mark.parametrize("templates", [[], "a picture", ["{}", "a picture"]])
def test_templates_without_a_place_for_the_name(tiny, tokenizer, templates):
    with pytest.raises(MinclipError, match="{}"):
        zero_shot_classifier(tiny, tokenizer, NAMES, templates)


def test_encoding_in_chunks_is_encoding_at_once(tiny, tokenizer):
    captions = [f"{i} cats" for i in range(CHUNK + 3)]
    images = torch.rand(CHUNK + 3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encode_texts(tiny, tokenizer, captions), tiny.encode_text(tokenizer(captions)))
        torch.testing.assert_close(encode_images(tiny, images), tiny.encode_image(images))


def test_no_captions_are_refused(tiny, tokenizer):
    with pytest.raises(MinclipError, match="empty"):
        encode_texts(tiny, tokenizer, [])


def test_a_model_is_left_in_the_mode_it_was_in(tiny):
    for training in (True, False):
        tiny.train(training)
        with pytest.raises(KeyError), evaluating(tiny):
            assert not tiny.training
            raise KeyError
        assert tiny.training is training


@pytest.mark.parametrize("training", [True, False])
def test_a_model_in_training_encodes_as_one_in_use(training, tokenizer):
    torch.manual_seed(0)
    model = CLIP(CLIPConfig(8, 32, (1, 1, 1, 1), 4, None, 16, tokenizer.vocab_size, 16, 2, 1, vision_heads=2))
    model.ln_final = torch.nn.Sequential(model.ln_final, torch.nn.Dropout(0.5))
    images = torch.randn(6, 3, 32, 32)
    model.eval()
    with torch.no_grad():
        expected = model.encode_image(images), model.encode_text(tokenizer(NAMES)), model.visual.features(images)
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # BatchNorm's averages, too
    found = encode_images(model, images), encode_texts(model, tokenizer, NAMES)
    found += (torch.from_numpy(probe_features(model, images)),)
    for mine, its in zip(found, expected):
        torch.testing.assert_close(mine, its)
        assert not mine.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training is training


def test_features_of_a_model_in_half_precision_are_float32(tiny, tokenizer):
    tiny = tiny.bfloat16()
    assert encode_texts(tiny, tokenizer, NAMES).dtype == torch.float32
    assert encode_images(tiny, torch.rand(2, 3, 32, 32).bfloat16()).dtype == torch.float32


def test_accuracy_of_a_known_case():
    classifier = torch.eye(3)
    features = torch.tensor([[0.9, 0.5, 0.1], [0.1, 0.9, 0.5], [0.5, 0.1, 0.9], [0.9, 0.5, 0.1]])
    labels = torch.tensor([0, 2, 1, 0])
    assert accuracy(features, classifier, labels) == 0.5
    assert accuracy(features, classifier, labels, top=2) == 0.75
    assert accuracy(features, classifier, labels, top=9) == 1.0
    for broken in (math.nan, math.inf):
        with pytest.raises(MinclipError, match="NaN or infinity"):
            accuracy(torch.full((4, 3), broken), classifier, labels)


def test_pictures_in_chunks_are_pictures_at_once(tiny):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CHUNK + 3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    at_once = encode_images(tiny, preprocess(images, tiny.config))
    torch.testing.assert_close(encode_pictures(tiny, images), at_once)
    as_array = images.permute(0, 2, 3, 1).numpy()
    with pytest.MonkeyPatch.context() as patch:  # no more than a chunk is ever preprocessed
        seen = []
        patch.setattr(zeroshot, "preprocess", lambda some, config: seen.append(len(some)) or preprocess(some, config))
        encode_pictures(tiny, as_array)
    assert seen == [CHUNK, 3]


@given(st.integers(1, 12), st.integers(0, 99))
def test_retrieval_against_sorting(n, seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(n, 4, generator=generator), dim=1) for _ in range(2))
    found = retrieval(images, texts, ks=(1, 3))
    for direction, a, b in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        for k in (1, 3):
            hits = [i in sorted(range(n), key=lambda j: -(a[i] @ b[j]).item())[:k] for i in range(n)]
            assert found[f"{direction}_R@{k}"] == pytest.approx(sum(hits) / n)


def test_retrieval_of_known_cases():
    perfect = retrieval(torch.eye(20), torch.eye(20))
    assert set(perfect) == {f"{d}_R@{k}" for d in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert set(perfect.values()) == {1.0}
    shifted = retrieval(torch.eye(20), torch.eye(20).roll(1, 0))
    assert shifted["image_to_text_R@1"] == 0
    same = retrieval(torch.ones(20, 4), torch.ones(20, 4))  # a model that has collapsed finds nothing
    assert same["image_to_text_R@1"] == 0 and same["text_to_image_R@5"] == 0
    twins = torch.eye(4)[[0, 0, 1, 2]]  # two alike: each is half a place behind the first, as is expected
    assert retrieval(twins, twins, ks=(1,)) == {"image_to_text_R@1": 1.0, "text_to_image_R@1": 1.0}
    triplets = torch.eye(4)[[0, 0, 0, 1]]  # three alike: a whole place behind
    found = retrieval(triplets, triplets, ks=(1, 2))
    assert found["image_to_text_R@1"] == 0.25 and found["image_to_text_R@2"] == 1.0


@pytest.mark.parametrize(
    ("images", "texts", "complaint"),
    [
        (torch.ones(4, 3), torch.ones(5, 3), "pairs"),
        (torch.ones(4, 3), torch.ones(4, 2), "pairs"),
        (torch.ones(0, 3), torch.ones(0, 3), "pairs"),
        (torch.full((4, 3), math.nan), torch.ones(4, 3), "NaN"),  # would compare as nearest of all
    ],
)
def test_retrieval_of_what_is_not_pairs(images, texts, complaint):
    with pytest.raises(MinclipError, match=complaint):
        retrieval(images, texts)

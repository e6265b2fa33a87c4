"""The course's pictures show what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from minclip import plots
from minclip.errors import MinclipError


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_picture_is_the_same_in_every_layout():
    picture = torch.arange(12 * 3, dtype=torch.uint8).view(3, 4, 3)  # (H, W, 3)
    expected = picture.numpy() / 255
    assert np.array_equal(plots.as_picture(picture), expected)
    assert np.array_equal(plots.as_picture(picture.numpy()), expected)
    channels_first = (picture.double() / 255).permute(2, 0, 1)
    assert np.allclose(plots.as_picture(channels_first), expected)
    with pytest.raises(MinclipError, match="expected"):
        plots.as_picture(torch.zeros(2, 3, 4, 4))


def test_a_matrix_is_drawn_with_its_values_names_and_pairs():
    values = torch.tensor([[0.9, -0.004, float("nan")], [0.2, -0.5, 0.1]], requires_grad=True)
    plots.matrix(values, rows=["a", "b"], columns=["x", "y", "z"], numbers=".2f")
    ax = plt.gcf().axes[0]
    (image,) = ax.images
    assert np.array_equal(image.get_array().filled(np.nan), values.detach().numpy(), equal_nan=True)
    low, high = image.get_clim()
    assert low == -high == pytest.approx(-0.9)  # zero is white
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["x", "y", "z"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert texts(ax)[:2] == ["0.90", "0.00"]  # no minus before a rounded zero
    assert [patch.get_xy() for patch in ax.patches] == [(-0.5, -0.5), (0.5, 0.5)]


def test_rows_may_be_pictures():
    plots.matrix(torch.eye(3), rows=torch.rand(3, 8, 8))
    assert len(plt.gcf().axes[0].artists) == 3


def test_a_strip_shows_every_token_in_order():
    plots.token_strips([["le", "tter</w>"], ["a</w>"]], ["long", "short"])
    assert texts(plt.gca()) == ["le", "tter</w>", "a</w>"]


def test_a_sheet_has_every_picture_and_caption():
    plots.pictures(np.zeros((5, 4, 4)), [f"picture {i}" for i in range(5)], columns=3)
    axes = plt.gcf().axes
    assert len(axes) == 6
    assert sum(len(ax.images) for ax in axes) == 5
    assert [texts(ax) for ax in axes] == [[f"picture {i}"] for i in range(5)] + [[]]

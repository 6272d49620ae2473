import pytest

from signmask.compiler.layout import Layout, LayoutError


def test_heads_are_split_and_joined_again():
    image = Layout.of_shape((1, 12, 4, 4))
    tokens = image.view((1, 12, 16)).transpose(1, 2)
    assert tokens.is_sequence
    split = tokens.view((1, -1, 3, 4)).transpose(1, 2)
    assert (split.heads, split.shape) == (3, (1, 3, 16, 4))
    assert split.transpose(1, 2).view((1, 16, 12)).is_sequence


def test_one_head():
    tokens = Layout.of_shape((2, 16, 8))
    split = tokens.view((2, -1, 1, 8)).transpose(1, 2)
    assert (split.heads, split.shape) == (1, (2, 1, 16, 8))


def test_a_view_back_to_an_image():
    image = Layout.of_shape((2, 6, 3, 5))
    tokens = image.permute((0, 2, 3, 1)).view((2, 15, 6))
    assert tokens.is_sequence
    assert tokens.transpose(1, 2).view((2, 6, 3, 5)).dims == image.dims


@pytest.mark.parametrize("shape", [(2, 90), (2, 3, 30), (12, 3, 5)])
def test_views_that_mix_channels_and_positions_are_not_layers_operands(shape):
    try:
        layout = Layout.of_shape((2, 6, 3, 5)).view(shape)
    except LayoutError:
        return
    assert not layout.is_sequence
    assert not layout.is_channels_first

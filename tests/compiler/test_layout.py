import numpy as np
import pytest
import torch

from signmask.compiler.layout import Layout, LayoutError


def test_heads_are_split_and_joined_again():
    image = Layout.of_shape((1, 12, 4, 4))
    tokens = image.view((1, 12, 16)).transpose(1, 2)
    assert tokens.is_sequence
    split = tokens.view((1, -1, 3, 4)).transpose(1, 2)
    assert (split.heads(), split.shape) == (3, (1, 3, 16, 4))
    assert split.transpose(1, 2).view((1, 16, 12)) == tokens


@pytest.mark.parametrize("images", [1, 2])
def test_heads_may_stand_in_the_batch(images):
    tokens = Layout.of_shape((images, 16, 8))
    split = tokens.view((images, 16, 4, 2)).permute((0, 2, 1, 3)).view((images * 4, 16, 2))
    assert (split.heads(), split.shape) == (4, (images * 4, 16, 2))


def test_channels_across_heads_are_no_heads():
    tokens = Layout.of_shape((2, 16, 8))
    assert tokens.view((2, 16, 4, 2)).permute((0, 3, 1, 2)).heads() == 0


def test_one_head():
    tokens = Layout.of_shape((2, 16, 8))
    split = tokens.view((2, -1, 1, 8)).transpose(1, 2)
    assert (split.heads(), split.shape) == (1, (2, 1, 16, 8))


def test_windows_are_no_images():
    image = Layout.of_shape((2, 6, 4, 4))
    windows = image.view((2, 6, 2, 2, 2, 2)).permute((0, 2, 4, 3, 5, 1)).view((8, 4, 6))
    assert windows.is_sequence
    assert windows.heads() == 0


def test_frames_at_each_position():
    tokens = Layout.of_shape((3, 16, 8))
    frames = tokens.transpose(0, 1).view((16, 3, 4, 2)).transpose(1, 2)
    assert (frames.heads(), frames.heads("n"), frames.shape) == (0, 4, (16, 4, 3, 2))
    assert tokens.view((3, 16, 4, 2)).transpose(1, 2).heads("n") == 0


def test_a_view_back_to_an_image():
    image = Layout.of_shape((2, 6, 3, 5))
    tokens = image.permute((0, 2, 3, 1)).view((2, 15, 6))
    assert tokens.is_sequence
    assert tokens.transpose(1, 2).view((2, 6, 3, 5)) == image
    assert image.is_image
    assert not image.transpose(2, 3).is_image


@pytest.mark.parametrize("shape", [(2, 90), (2, 3, 30), (12, 3, 5)])
def test_views_that_mix_channels_and_positions_are_not_layers_operands(shape):
    try:
        layout = Layout.of_shape((2, 6, 3, 5)).view(shape)
    except LayoutError:
        return
    assert not layout.is_sequence
    assert not layout.is_channels_first


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (5, 36), (2, 9, 10)])
def test_views_that_cut_a_dimension_unevenly_are_refused(shape):
    with pytest.raises(LayoutError):
        Layout.of_shape((2, 6, 3, 5)).view(shape)


def placed(layout: Layout, values: np.ndarray) -> np.ndarray:
    """The torch tensor of a channels-last array (n, h, w, c), worked out from the factors."""
    strides = dict(zip("nhwc", np.array(values.strides) // 8, strict=True))
    index = np.zeros(1, np.int64)
    for factor in (f for dim in layout.dims for f in dim):
        step = strides[factor.axis] * factor.stride
        index = (index[:, None] + step * np.arange(factor.size)).reshape(-1)
    return values.reshape(-1)[index].reshape(layout.shape)


CHANGES = [
    lambda x: x.view((2, 3, 2, 4, 6)),
    lambda x: x.permute((0, 2, 3, 1)).view((2, 2, 2, 3, 2, 6)),
    lambda x: x.view((2, 6, 24)).transpose(1, 2).view((2, 24, 2, 3)).transpose(1, 2),
    lambda x: x.permute((0, 2, 3, 1)).view((2, 4, 6, 3, 2, 1)).permute((0, 5, 1, 3, 2, 4)),
    lambda x: x.view((2, 3, 2, 4, 6)).permute((0, 3, 1, 4, 2)).view((2, 12, 12)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_factors_follow_the_elements_as_torch_does(change):
    values = np.arange(2 * 4 * 6 * 6).reshape(2, 4, 6, 6)  # channels-last
    tensor = torch.from_numpy(values).permute(0, 3, 1, 2)

    class Both:
        """The same operators on a tensor and on its layout."""

        def __init__(self, tensor: torch.Tensor, layout: Layout) -> None:
            self.tensor, self.layout = tensor, layout

        def view(self, shape: tuple[int, ...]) -> "Both":
            return Both(self.tensor.reshape(shape), self.layout.view(shape))

        def permute(self, order: tuple[int, ...]) -> "Both":
            return Both(self.tensor.permute(order), self.layout.permute(order))

        def transpose(self, a: int, b: int) -> "Both":
            return Both(self.tensor.transpose(a, b), self.layout.transpose(a, b))

    found = change(Both(tensor, Layout.of_shape(tensor.shape)))
    assert (placed(found.layout, values) == found.tensor.numpy()).all()


@pytest.mark.parametrize(("dim", "start", "length"), [(1, 0, 1), (1, 1, 2), (2, 0, 1), (5, 2, 1)])
def test_selection_keeps_the_channels_that_torch_keeps(dim, start, length):
    values = np.arange(2 * 4 * 6 * 18).reshape(2, 4, 6, 18)
    if dim == 5:
        layout = Layout.of_shape((2, 18, 4, 6)).permute((0, 2, 3, 1)).view((2, 4, 6, 3, 2, 3))
    else:
        layout = Layout.of_shape((2, 18, 4, 6)).view((2, 3, 6, 4, 6))
    chosen, index = layout.selected(dim, start, length)
    kept = np.ascontiguousarray(values[..., index])
    expected = torch.from_numpy(placed(layout, values)).narrow(dim, start, length).numpy()
    assert (placed(chosen, kept) == expected).all()


def test_positions_and_images_cannot_be_selected():
    layout = Layout.of_shape((2, 6, 3, 5))
    for dim in (0, 2, 3):
        with pytest.raises(LayoutError, match="does not count channels"):
            layout.selected(dim, 0, 1)
    assert layout.selected(2, 0, 3)[0] == layout


def test_constants_are_spread_over_the_axes_that_they_vary_along():
    image = Layout.of_shape((2, 6, 3, 5))
    per_channel = np.arange(6.0).reshape(1, 1, 6, 1, 1)
    assert (image.spread(per_channel).reshape(-1) == np.arange(6)).all()
    assert image.spread(per_channel).shape == (1, 1, 1, 6)
    assert image.spread(np.zeros((4, 5))).shape == (4, 1, 15, 1)
    split = image.permute((0, 2, 3, 1)).view((2, 15, 3, 2))
    per_head = np.arange(3.0).reshape(1, 3, 1)
    assert (split.spread(per_head).reshape(-1) == [0, 0, 1, 1, 2, 2]).all()
    for shape in ((1, 3, 6, 3, 5), (1, 6, 4, 5), (1, 1, 2, 6, 3, 5)):
        with pytest.raises(LayoutError, match="enlarges"):
            image.spread(np.zeros(shape))


def test_dimensions_of_size_one():
    tokens = Layout.of_shape((1, 4, 6)).unsqueeze(2)
    assert tokens.shape == (1, 4, 1, 6)
    assert tokens.squeeze([2]).shape == (1, 4, 6)
    assert tokens.squeeze([1, 2]).shape == (1, 4, 6)
    assert tokens.squeeze(range(4)).shape == (4, 6)

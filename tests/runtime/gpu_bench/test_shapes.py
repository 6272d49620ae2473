"""Layer shapes against the diffusers models, run without weights."""

import pytest
import torch

from signmask.runtime import denoisers
from signmask.runtime.architectures import architecture
from signmask.runtime.gpu_bench.shapes import ADM, SD, layer_shapes, stream_shapes

SHAPES = layer_shapes()


@pytest.mark.parametrize("name", [SD, ADM])
def test_layers_have_these_shapes_in_a_run(name):
    model = denoisers.build(architecture(name), weights=False)
    inner = model.get_submodule(model.part)
    chosen = {shape.layer: shape for shape in SHAPES if shape.model == name}
    layers = {path: layer for path, layer in named_layers(inner) if path in chosen}
    assert layers.keys() == chosen.keys()
    seen = {}
    for path, layer in layers.items():
        layer.register_forward_pre_hook(
            # What a hook returns, unless None, becomes the input.
            lambda module, args, path=path: seen.update({path: tuple(args[0].shape)})
        )
    sample, timestep = model.example()
    model.to("meta")
    conditions = {key: value.to("meta") for key, value in model.conditions.items()}
    with torch.no_grad():
        inner(sample.to("meta"), timestep.to("meta"), **conditions)
    for path, shape in chosen.items():
        weight = tuple(layers[path].weight.shape)
        if shape.kernel == 1:
            assert weight == (shape.out_channels, shape.in_channels), path
            assert seen[path] == (1, shape.height * shape.width, shape.in_channels), path
        else:
            kernel = (shape.kernel, shape.kernel)
            assert weight == (shape.out_channels, shape.in_channels, *kernel), path
            assert layers[path].stride == (1, 1) and layers[path].padding == (1, 1), path
            assert seen[path] == (1, shape.in_channels, shape.height, shape.width), path


def named_layers(model):
    return [(path, m) for path, m in model.named_modules() if hasattr(m, "weight")]


def test_names_are_unique_and_batches_scale():
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    first = SHAPES[0]
    assert first.name == "sd-v1-4 3x3 64x64 320>320"
    assert first.macs(1) == 64 * 64 * 320 * 320 * 9
    assert first.macs(3) == 3 * first.macs(1) and first.positions(2) == 2 * 64 * 64


def test_quick_is_a_part_of_both_models():
    quick = layer_shapes(quick=True)
    assert set(quick) < set(SHAPES) and {shape.model for shape in quick} == {SD, ADM}


def test_stream_shapes_have_each_size_once():
    sizes = [(s.height, s.width, s.out_channels) for s in stream_shapes(SHAPES)]
    assert len(set(sizes)) == len(sizes)
    assert set(sizes) == {(s.height, s.width, s.out_channels) for s in SHAPES}

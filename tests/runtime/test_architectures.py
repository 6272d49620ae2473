"""Named architectures, diffusers folders with conditions, and programs without weights."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file

import signmask
from signmask.hw.spec.container import Program
from signmask.runtime import architectures, denoisers
from signmask.runtime.errors import RunError
from signmask.runtime.folders import open_folder
from signmask.runtime.sources import reopen, resolve
from tests.runtime.test_cli import call, failure

SMALL = [name for name in architectures.names() if name.endswith("-small")]
TEXT = architectures.architecture("sd-v1-4-small")
# Millions of parameters that the diffusers form has in addition: 27 more copies of embeddings.
EXTRA = {"dit-xl-2-256": 27 * (256 * 1152 + 1152**2 + 2 * 1152 + 1001 * 1152) / 1e6}


@pytest.mark.parametrize("name", architectures.names())
def test_parameters_are_those_of_the_published_model(name):
    found = architectures.architecture(name)
    model = denoisers.build(found, weights=False)
    assert sum(p.numel() for p in model.parameters()) == found.parameters
    if found.published is not None:
        published = found.published + EXTRA.get(name, 0.0)
        assert found.parameters / 1e6 == pytest.approx(published, rel=0.002)


@pytest.mark.parametrize("name", SMALL)
def test_small_versions_predict_something_that_depends_on_every_input(name):
    found = architectures.architecture(name)
    model = denoisers.build(found)
    sample, timestep = model.example()
    sample = torch.randn(sample.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = model(sample, timestep)
        assert out.shape[0] == sample.shape[0] and out.shape[2:] == sample.shape[2:]
        assert out.isfinite().all() and 1e-3 < out.std() < 1e3
        assert not torch.equal(out, model(sample, timestep + 500))
        assert torch.equal(out, denoisers.build(found)(sample, timestep))
        for keyword, value in model.conditions.items():
            changed = denoisers.build(found, conditions={keyword: value * 0})
            assert not torch.equal(out, changed(sample, timestep)), keyword


def test_merged_low_rank_branches_compute_the_same():
    sample, timestep = torch.ones(1, 4, 8, 8), torch.tensor([3])
    apart, merged = (
        denoisers.build(architectures.architecture(name))(sample, timestep)
        for name in ("sd-v1-4-lora-small", "sd-v1-4-lora-merged-small")
    )
    assert torch.allclose(apart, merged, atol=1e-4)
    plain = denoisers.build(TEXT)(sample, timestep)
    assert not torch.allclose(plain, merged, atol=1e-2)


def test_full_size_without_weights_takes_no_memory():
    model = denoisers.build(architectures.architecture("sdxl"), weights=False)
    stored = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
              for p in model.parameters()}  # fmt: skip
    assert sum(stored.values()) < 10e6


def test_digest_ignores_order_and_equal_rows():
    text, label = torch.randn(1, 3, 4), torch.tensor([7])
    digest = denoisers.digest_of({"text": text, "label": label})
    assert digest == denoisers.digest_of({"label": label, "text": text.expand(2, 3, 4)})
    assert digest != denoisers.digest_of({"label": label, "text": text + 1})
    assert denoisers.digest_of({}) == ""
    assert denoisers.flatten({"a": {"b": text}, "c": None}).keys() == {"a.b"}


def save_pipeline(folder, model, part="unet"):
    model.save_pretrained(folder / part)
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "P", part: ["diffusers", type(model).__name__]})
    )
    return folder


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    unet = denoisers.build(TEXT).get_submodule("unet")
    return save_pipeline(folder, unet)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.safetensors"
    save_file({"encoder_hidden_states": torch.randn(1, 5, 32)}, path)
    return path


def test_folders_select_their_class(text_folder, text_file):
    source = resolve(str(text_folder), conditions=text_file)
    model = source.load()
    assert isinstance(model.get_submodule("unet"), UNet2DConditionModel)
    assert source.scheduler["beta_schedule"] == "scaled_linear"
    sample, timestep = model.example()
    text = model.conditions["encoder_hidden_states"]
    with torch.no_grad():
        expected = UNet2DConditionModel.from_pretrained(text_folder / "unet").eval()(
            sample, timestep, text
        )
        assert torch.equal(model(sample, timestep), expected.sample)
    front = source.float_model(model)
    assert front(sample.numpy(), 1).shape == (1, 4, 8, 8)


def test_transformer_folders(tmp_path):
    found = architectures.architecture("dit-xl-2-256-small")
    save_pipeline(tmp_path, denoisers.build(found).get_submodule("transformer"), "transformer")
    save_file({"class_labels": torch.tensor([3])}, tmp_path / "c.safetensors")
    model = resolve(str(tmp_path), conditions=tmp_path / "c.safetensors").load()
    sample, timestep = model.example()
    assert model(sample, timestep).shape == (1, 8, 8, 8)
    # As published before the class had a name of its own.
    config = json.loads((tmp_path / "transformer" / "config.json").read_text())
    config["_class_name"] = "Transformer2DModel"
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    assert open_folder(tmp_path).class_name == "DiTTransformer2DModel"


def test_what_is_wrong_with_a_folder_is_said(capsys, tmp_path, text_folder, text_file):
    out = ("-o", tmp_path / "p.smk")
    message = failure(capsys, "compile", text_folder, *out)
    assert "encoder_hidden_states float (rows, tokens, 32)" in message
    assert "--conditions" in message
    save_file({"pixels": torch.ones(1)}, tmp_path / "wrong.safetensors")
    plain = tmp_path / "plain"
    UNet2DModel(
        sample_size=8, block_out_channels=(32,), down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ).save_pretrained(plain / "unet")  # fmt: skip
    wrong = ("--conditions", tmp_path / "wrong.safetensors")
    assert "does not take the condition(s) pixels" in failure(
        capsys, "compile", plain, *out, *wrong
    )
    (tmp_path / "wrong.safetensors").write_bytes(b"junk")
    assert "not an intact safetensors file" in failure(capsys, "compile", plain, *out, *wrong)
    (plain / "unet" / "config.json").write_text('{"_class_name": "VQModel"}')
    assert "is of class VQModel" in failure(capsys, "compile", plain, *out)
    assert "no config.json" in failure(capsys, "compile", tmp_path, *out)
    assert "takes no conditions" in failure(
        capsys, "compile", "fashion-silu", *out, "--conditions", text_file
    )
    assert "--no-weights is for" in failure(capsys, "compile", "fashion-silu", *out, "--no-weights")
    assert "use 0" in failure(capsys, "compile", "fashion-silu", *out, "--calibration-images", -1)


def test_a_program_without_weights_is_inspected_but_not_run(capsys, tmp_path):
    path = tmp_path / "bare.smk"
    code, out, _ = call(
        capsys, "compile", "dit-xl-2-256-small", "--no-weights", "--steps", 3, "-o", path,
        "--dataflow", "restore", "--json",
    )  # fmt: skip
    facts = json.loads(out)
    assert code == 0 and facts["weights"] == "none" and facts["statistics"] == "unit-normal"
    assert any("no weights" in note for note in facts["notes"])
    program = Program.load(path)
    sizes = {r["name"]: r["size"] for r in program.memory_map if r["kind"] == "weights"}
    assert len(sizes) == len(program.network.linears)
    assert all(sizes[f"weights/{n}"] > 0 for n in program.network.linears)
    assert len(program.image) < sum(sizes.values())
    assert not any(linear.weight in program.tensors for linear in program.network.linears.values())
    code, out, _ = call(capsys, "inspect", path)
    assert code == 0 and "no weights" in out
    for backend in ("reference", "sim"):
        assert "has no weights" in failure(capsys, "run", path, "--backend", backend)


def test_a_named_architecture_compiles_and_runs(capsys, tmp_path):
    path = tmp_path / "dit.smk"
    arguments = ("compile", "dit-xl-2-256-small", "--steps", 2, "--calibration-images", 2)
    code, _, _ = call(capsys, *arguments, "--dataflow", "restore", "-o", path)
    assert code == 0
    code, out, _ = call(capsys, "run", path, "--backend", "reference", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["psnr_db_vs_fp32"] > 20 and facts["identical_to_dense"]


def test_conditions_of_a_program_are_known_again(tmp_path):
    """One of several conditions in the file, the others synthetic."""
    path = tmp_path / "c.safetensors"
    save_file({"encoder_hidden_states": torch.randn(1, 5, 32)}, path)
    source = resolve("sdxl-small", conditions=path)
    facts = source.to_json() | {"conditions_sha256": source.condition_digest(source.load())}
    assert reopen(facts, source.scheduler) == source
    save_file({"encoder_hidden_states": torch.randn(1, 5, 32)}, path)
    with pytest.raises(RunError, match="were altered since"):
        reopen(facts, source.scheduler)


def test_models_lists_architectures(capsys):
    listed = json.loads(call(capsys, "models", "--json")[1])["architectures"]
    assert {row["name"] for row in listed} == set(architectures.names())
    assert all(row["parameters"] > 0 and row["source"] for row in listed)
    assert max(map(len, call(capsys, "models")[1].splitlines())) <= 100


def test_conditions_of_a_pipeline_must_be_the_compiled_ones():
    model = denoisers.build(TEXT).get_submodule("unet")
    text = torch.randn(1, 4, 32)
    compiled = signmask.compile(
        model, steps=2, scheduler=DDPMScheduler(), backend="reference", dataflow="dense",
        conditions={"encoder_hidden_states": text}, calibration_images=1,
    )  # fmt: skip
    first = compiled.program.network.timesteps[0]
    sample = torch.randn(1, 4, 8, 8)
    noise = compiled(sample, first, encoder_hidden_states=text, timestep_cond=None).sample
    with torch.no_grad():
        expected = model(sample, first, text).sample
    assert (noise - expected).square().mean() < 0.01 * expected.var()
    with pytest.raises(RunError, match="encoder_hidden_states are not those"):
        compiled(sample, first, encoder_hidden_states=text + 1)

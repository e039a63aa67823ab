"""The autoencoder's stage: its terms are their equations, and its held-out figures are what they say."""

import pytest
import torch

from fitdiff.data.shards import dequantise
from fitdiff.training.autoencoder_stage import AutoencoderStage
from fitdiff.types import FaceMaps
from tests.tiny_stages import BATCH, PEOPLE, Edges, autoencoder_stage, make_people, people_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    make_people(folder)
    return folder


@pytest.fixture
def stage(folder):
    return autoencoder_stage(folder)


def batch_of(stage):
    return stage.batch(range(BATCH), torch.arange(BATCH), 0)


def test_the_codebook_waits_for_the_global_batch(stage):
    quantiser = stage.autoencoder.train().quantiser
    for start in range(0, BATCH, 2):
        assert quantiser.updates == 0
        rows = torch.arange(start, start + 2)
        list(stage.losses(stage.batch(rows.tolist(), rows, 0), 0))
    assert quantiser.updates == 1


def test_terms_before_and_after_the_warm_up(stage):
    stage.autoencoder.train()
    maps = dequantise(batch_of(stage)["maps"])
    output = stage.autoencoder.eval()(maps)
    [(name, loss, terms)] = stage.losses(batch_of(stage), step=1)
    assert name == "autoencoder"
    deviation = dequantise(people_of(stage.train.folder).load("maps")) - stage.autoencoder.mean
    units = deviation.square().mean((0, 2, 3)).view(3, 3).mean(1).sqrt().clamp_min(0.05).repeat_interleave(3)
    l1 = ((output.reconstruction - maps).abs().mean((0, 2, 3)) / units).mean()
    pictures = [(x * 0.5 + 0.5).clamp(0, 1) for x in (output.reconstruction, maps)]
    perceptual = sum(Edges()(*(x[:, part : part + 3] for x in pictures)).mean() / 3 for part in (0, 3, 6))
    torch.testing.assert_close(terms["loss_l1"], l1, check_dtype=False, rtol=1e-5, atol=0)
    torch.testing.assert_close(terms["loss_perceptual"], perceptual, check_dtype=False, rtol=1e-5, atol=0)
    error = output.latent - stage.autoencoder.quantiser.codebook[output.codes].movedim(-1, 1)
    torch.testing.assert_close(terms["loss_commitment"], 0.25 * error.square().mean())
    torch.testing.assert_close(loss, terms["loss_l1"] + terms["loss_perceptual"] + terms["loss_commitment"])
    (_, loss, terms), (name, _, _) = stage.losses(batch_of(stage), step=2)
    assert name == "discriminator"
    whole = terms["loss_l1"] + terms["loss_perceptual"] + terms["loss_commitment"]
    torch.testing.assert_close(loss, whole + 0.8 * terms["adaptive_weight"] * terms["loss_generator"])


def test_held_out_figures(stage, folder):
    maps = dequantise(people_of(folder).load("maps"))
    with torch.no_grad():
        stage.autoencoder.train()(maps)  # seeds the codebook with latents
        autoencoder = stage.autoencoder.eval()
        found = stage.evaluate({"autoencoder": autoencoder})
        output = autoencoder(maps)
    truth, decoded = (FaceMaps.from_tensor(x).to_images() for x in (maps, output.reconstruction))
    for name, pictures in truth.items():
        psnr = -10 * (pictures - decoded[name]).square().mean().log10()
        assert found[f"psnr_{name}"] == pytest.approx(psnr.item(), abs=1e-3)
    codes = output.codes.flatten()
    share = torch.bincount(codes) / len(codes)
    assert found["perplexity"] == pytest.approx((-(share * share.clamp_min(1e-12).log()).sum()).exp().item(), rel=1e-4)
    assert found["codes_in_held_out"] == len(codes.unique()) / 32
    assert found["perplexity"] > 2
    assert found["pca_numbers"] == PEOPLE - 1
    assert found["psnr_diffuse_pca"] > 60  # of the people that it was made of
    assert stage.monitor[0] in found


class Linear:
    """Stands in for the linear path: keeps what it is given."""

    def fit(self, standard, metric):
        self.standard = standard


def test_the_linear_path_starts_from_all_people_where_the_network_is(stage, folder, monkeypatch):
    people, autoencoder = people_of(folder), stage.autoencoder
    monkeypatch.setattr("fitdiff.training.autoencoder_stage.CHUNK", 5)
    autoencoder.linear = Linear()
    AutoencoderStage(autoencoder, Edges(), people, people, 0, steps=1, epochs=None)
    expected = autoencoder.standardise(dequantise(people.load("maps")))
    torch.testing.assert_close(autoencoder.linear.standard, expected, rtol=0, atol=0)
    # Arithmetic between that device and the CPU is an error, as with a GPU.
    elsewhere = AutoencoderStage(autoencoder.to("meta"), Edges(), people, people, 0, steps=1, epochs=None)
    assert autoencoder.linear.standard.shape == expected.shape
    assert autoencoder.linear.standard.is_meta
    assert elsewhere.l1_weight.is_meta


def test_the_pca_is_made_once(stage, monkeypatch):
    averages = {"autoencoder": stage.autoencoder.eval()}
    first = stage.evaluate(averages)
    monkeypatch.setattr("fitdiff.training.autoencoder_stage.pca_psnr", None)
    assert stage.evaluate(averages) == first

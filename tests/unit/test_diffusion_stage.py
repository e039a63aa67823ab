"""The diffusion stage: what a batch holds, what each loss is, and what the held-out figures say of known answers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fitdiff.evaluation import held_out
from fitdiff.evaluation.held_out import noise_losses, sample_metrics
from fitdiff.training.diffusion_stage import spread
from tests.tiny_stages import BATCH, PEOPLE, Lossless, diffusion_stage, make_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    make_people(folder)
    return folder


@pytest.fixture(scope="module")
def stage(folder):
    return diffusion_stage(folder)


@pytest.fixture(scope="module")
def lossless(folder):
    return diffusion_stage(folder, {"autoencoder": Lossless()})


class Oracle(nn.Module):
    """Knows the z of everybody whose embedding it was shown, and so predicts the noise without error."""

    def __init__(self, stage):
        super().__init__()
        self.schedule, (self.z, embeddings) = stage.model.schedule, stage._people("train", range(PEOPLE))
        self.embeddings = embeddings.flatten(0, 1)

    def z_of(self, embedding):
        return self.z[torch.cdist(embedding, self.embeddings).argmin(1) // 2]

    def forward(self, z_t, t, embedding, drop_B=None):
        return self.schedule.predict_eps(z_t, t, self.z_of(embedding))


def batch_of(stage, rows, step=1):
    rows = torch.as_tensor(rows)
    return stage.batch([int(row) for row in rows], rows, step)  # person r is row r


def losses_of(stage, batch, step, denoiser):
    trained, stage.modules["denoiser"] = stage.modules["denoiser"], denoiser
    [(name, loss, terms)] = stage.losses(batch, step)
    stage.modules["denoiser"] = trained
    assert name == "denoiser"
    return loss, terms


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(0, n), st.integers(0, n))
    )
)
def test_rendered_rows_are_spread_evenly(case):
    count, total, start, stop = case
    chosen, run = spread(count, total), max(0, stop - start)
    assert chosen.sum() == count
    assert run * count // total <= chosen[start : start + run].sum() <= -(-run * count // total)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_sample_is_the_same_however_the_batch_is_split(stage, size):
    whole = batch_of(stage, range(BATCH), step=3)
    parts = [batch_of(stage, range(i, i + size), step=3) for i in range(0, BATCH, size)]
    for key, value in whole.items():
        joined = [part[key] + (i * size if key == "rendered" else 0) for i, part in enumerate(parts) if key in part]
        assert torch.equal(torch.cat(joined), value), key
    assert not torch.equal(batch_of(stage, range(BATCH), step=5)["noise"], whole["noise"])


def test_pictures_are_read_in_steps_that_render_only(stage):
    assert "view_image" not in batch_of(stage, range(BATCH), step=2)
    batch = batch_of(stage, range(BATCH), step=3)
    assert batch["rendered"].tolist() == spread(3, BATCH).nonzero()[:, 0].tolist()
    stored = stage.train.gather(batch["rendered"].tolist(), ("image", "embedding"))
    for row, picture, pictures, views in zip(
        batch["rendered"], batch["view_image"], stored["image"], stored["embedding"], strict=True
    ):
        view = (views == batch["embedding"][row]).all(1).nonzero().item()
        assert torch.equal(picture, pictures[view])


def test_random_numbers_have_their_distributions(folder):
    stage = diffusion_stage(folder, render_every=1, condition_dropout=0.25)
    batches = [batch_of(stage, range(BATCH), step) for step in range(250)]
    t, drop, noise = (torch.stack([batch[key] for batch in batches]) for key in ("t", "drop", "noise"))
    shown = spread(3, BATCH)
    assert t[:, shown].max() < 300
    assert t[:, shown].float().mean() == pytest.approx(149.5, abs=10)  # three deviations
    assert t[:, ~shown].float().mean() == pytest.approx(499.5, abs=25)
    assert t[:, ~shown].max() > 990
    assert drop.float().mean() == pytest.approx(0.25, abs=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)
    first_view = torch.stack([batch["embedding"] for batch in batches]) == stage._people("train", range(BATCH))[1][:, 0]
    assert first_view.all(2).float().mean() == pytest.approx(0.5, abs=0.04)


def test_who_knows_the_truth_has_no_noise_and_no_shape_loss(lossless):
    batch = batch_of(lossless, range(BATCH))
    _, terms = losses_of(lossless, batch, 1, Oracle(lossless))
    assert terms["loss_noise"] < 1e-9
    assert terms["loss_verts"] < 1e-3  # mm
    mistaken = Oracle(lossless)
    mistaken.z = mistaken.z.roll(1, 0)  # knows somebody else
    _, of_others = losses_of(lossless, batch, 1, mistaken)
    for name in ("loss_id", "loss_per"):
        assert terms[name] < 0.5 * of_others[name]


def test_every_term_is_its_equation_for_the_samples_that_it_looks_at(folder):
    stage = diffusion_stage(folder, id_weight=2.0, per_weight=3.0, verts_weight=0.5, alpha_bar_weighting=True)
    batch, model = batch_of(stage, range(BATCH)), stage.model
    denoiser = stage.modules["denoiser"].eval()
    with torch.no_grad():
        loss, terms = losses_of(stage, batch, 1, denoiser)
        noise, verts, rendered = 0.0, 0.0, {"loss_id": 0.0, "loss_per": 0.0}
        for row in range(BATCH):
            one = {key: batch[key][row, None] for key in ("z", "t", "noise", "embedding", "drop")}
            alpha_bar = model.schedule.alpha_bar[one["t"]].float()
            z_t = alpha_bar.sqrt() * one["z"] + (1 - alpha_bar).sqrt() * one["noise"]
            eps = denoiser(z_t, one["t"], one["embedding"], drop_B=one["drop"])
            noise += (eps - one["noise"])[:, : model.latent.used].square().mean() / BATCH
            z0 = ((z_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()).clamp(-4, 4)
            if one["t"] < 700:
                distance = (model.vertices(z0) - model.vertices(one["z"])).abs().mean()
                verts += alpha_bar.item() * distance / BATCH
            if row in batch["rendered"]:
                place = batch["rendered"].tolist().index(row)
                view = {k.removeprefix("view_"): v[place, None] for k, v in batch.items() if k.startswith("view_")}
                for name, value in stage._identity_terms(z0, z0, view).items():
                    rendered[name] += alpha_bar.item() * value.item() / 3
    expected = {"loss_noise": noise, "loss_verts": verts, **rendered}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(float(value), rel=1e-4), name
    total = noise + 0.5 * verts + 2 * rendered["loss_id"] + 3 * rendered["loss_per"]
    assert loss.item() == pytest.approx(float(total), rel=1e-4)
    assert (batch["t"] >= 700).any()


def test_terms_switch_off_and_wait_for_their_turn(folder):
    assert set(losses_of(s := diffusion_stage(folder, id_weight=0.0, per_weight=0.0), batch_of(s, range(4)), 1, Oracle(s))[1]) == {"loss_noise", "loss_verts"}  # fmt: skip # noqa: E501
    stage = diffusion_stage(folder, verts_every=3)
    seen = [set(losses_of(stage, batch_of(stage, range(4), step), step, Oracle(stage))[1]) for step in range(4)]
    assert [("loss_verts" in names, "loss_id" in names) for names in seen] == [
        (False, False), (False, True), (True, False), (False, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"render_every": 0}, "render_every is 0; expected at least 1"),
        ({"render_samples": 0}, "render_samples is 0; expected at least 1"),
        ({"verts_t_max": -1}, "verts_t_max is -1"),
        ({"noise_weighting": "none"}, "noise_weighting is 'none'; expected constant or velocity"),
    ],
)
def test_options_out_of_range_are_named(folder, option, message):
    with pytest.raises(ValueError, match=message):
        diffusion_stage(folder, **option)


def test_held_out_figures_of_one_who_knows_everybody(lossless):
    gather = lambda people: lossless._people("train", people)  # noqa: E731
    found = noise_losses(lossless.model, Oracle(lossless), gather, PEOPLE)
    assert found["noise_loss"] < 1e-8
    assert found["noise_loss_predicting_nothing"] == pytest.approx(found["mean_alpha_bar"], rel=0.2)
    found = sample_metrics(lossless.model, Oracle(lossless), gather, PEOPLE)
    assert found["shape_mm"] < 0.2 < found["shape_mm_mean_face"]
    assert found["identity_cosine"] > found["identity_cosine_mean_face"]
    assert found["identity_cosine_centred"] > found["identity_cosine_centred_mean_face"] + 0.2


def test_evaluation_repeats_itself_and_touches_no_random_generator(stage, monkeypatch):
    monkeypatch.setattr(held_out, "LEAST_EVALUATIONS", PEOPLE)
    averages = {"denoiser": stage.modules["denoiser"].eval()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = stage.evaluate(averages)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert stage.evaluate(averages) == first
    assert stage.monitor[0] in first

"""Procedural skin on a small stand-in face: determinism, ranges, and what phenotypes do to it."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as nnf

from fitdiff.data.atlas import UvAtlas
from fitdiff.data.skin import SkinSynthesiser
from fitdiff.data.skin_eyes import fit_sphere
from fitdiff.data.skin_geometry import MIRROR, inside_polygon, nearest_on_polyline, smooth_curve
from fitdiff.data.skin_hair_colour import hair_colour
from fitdiff.data.skin_look import sample_look
from fitdiff.data.skin_marks import SCAR_SPOTS, MarkPainter, Marks
from fitdiff.data.skin_tone import MELANIN_STEPS, REGIONS, melanin_of_tone, pigments_to_albedo
from fitdiff.evaluation.skin_tone import CLASSES, class_shares, lab_of_albedo, typology_angle
from fitdiff.shape_model.anny_population import sample_population
from fitdiff.types import FaceMaps, TensorRecord, Topology

EYE = torch.tensor([30.0, 25.0])


def stand_in_landmarks() -> torch.Tensor:
    """(68, 2) x and y in mm of a plain frontal face; the subject's right is -x."""
    t = torch.linspace(0, torch.pi, 17)
    jaw = torch.stack([-66 * t.cos(), 24 - 108 * t.sin()], 1)
    x = torch.linspace(8, 52, 5)
    brow = torch.stack([x, 40 + 6 * torch.sin((x - 8) / 44 * torch.pi)], 1)
    flip = torch.tensor([-1.0, 1.0])
    bridge = torch.stack([torch.zeros(4), torch.linspace(24, -12, 4)], 1)
    nostrils = torch.tensor([[-12.0, -19], [-6, -22], [0, -23], [6, -22], [12, -19]])
    eye = torch.tensor([[-12.0, 0], [-5, 4], [5, 4], [12, 0], [5, -4], [-5, -4]])
    lips = torch.tensor([[-22.0, -45], [-14, -39], [-5, -37], [0, -38], [5, -37], [14, -39], [22, -45]])
    lower = torch.tensor([[13.0, -53], [6, -56], [0, -57], [-6, -56], [-13, -53]])
    inner = torch.tensor([[-18.0, -45], [-6, -44], [0, -44], [6, -44], [18, -45], [6, -46], [0, -46], [-6, -46]])
    parts = [jaw, (brow * flip).flip(0), brow, bridge, nostrils, eye + EYE * flip, eye + EYE, lips, lower, inner]
    return torch.cat(parts)


@pytest.fixture(scope="module")
def face() -> tuple[torch.Tensor, Topology]:
    """Mean vertices (mm) and topology of half a barrel with two bulging eyes."""
    n = 100
    v, u = torch.meshgrid(torch.linspace(0.01, 0.99, n), torch.linspace(0.01, 0.99, n), indexing="ij")
    angle, y = (u - 0.5) * 3.1, 90 - 185 * v
    x, z = 72 * angle.sin(), 72 * angle.cos() - 30 - (y / 20) ** 2
    mean = torch.stack([x, y, z], -1).flatten(0, 1)
    offset = torch.stack([mean[:, 0].abs() - EYE[0], mean[:, 1] - EYE[1]], 1)
    eyes = ((offset / torch.tensor([11.5, 5.0])).square().sum(1) < 1) & (mean[:, 2] > 0)
    depth = mean[eyes, 2].mean() - 8
    mean[eyes, 2] = depth + (15.0**2 - offset[eyes].square().sum(1)).sqrt()
    mouth = torch.stack([mean[:, 0] / 17, (mean[:, 1] + 45) / 3.5], 1).square().sum(1) < 1
    teeth = torch.stack([mean[:, 0] / 14, (mean[:, 1] + 45) / 2.5], 1).square().sum(1) < 1
    row, column = torch.meshgrid(torch.arange(n - 1), torch.arange(n - 1), indexing="ij")
    a = (row * n + column).flatten()
    faces = torch.cat([torch.stack([a, a + n, a + 1], 1), torch.stack([a + 1, a + n, a + n + 1], 1)])
    front = mean[:, :2] + (mean[:, 2:] < 0) * 1000
    nearest = torch.cdist(stand_in_landmarks(), front).argmin(1)
    weights = torch.tensor([1.0, 0.0, 0.0]).expand(68, 3)
    regions = {"eyes": eyes, "inner_mouth": mouth, "teeth": teeth}
    uv = torch.stack([u, v], -1).flatten(0, 1)
    return mean, Topology(faces, uv, nearest[:, None].expand(68, 3), weights, regions)


@pytest.fixture(scope="module")
def skins(face) -> dict[int, SkinSynthesiser]:
    return {size: SkinSynthesiser(UvAtlas.build(*face, size)) for size in (64, 256)}


def people(n: int, first: int = 0, **fixed) -> SimpleNamespace:
    """Evenly mixed phenotypes, a function of the index alone."""
    index = torch.arange(first, first + n)
    phase = index[:, None] * torch.tensor([0.618, 0.414, 0.732])
    columns = (phase - phase.floor()).unbind(1)
    race = nnf.one_hot(index % 3, 3).float()
    record = {"gender": columns[0], "age": columns[1], "weight": columns[2], "race": race}
    record |= {
        name: torch.as_tensor(value, dtype=torch.float32).expand_as(record[name]) for name, value in fixed.items()
    }
    return SimpleNamespace(index=index, **record)


def pick(record: SimpleNamespace, select) -> SimpleNamespace:
    return SimpleNamespace(**{name: value[select] for name, value in vars(record).items()})


def region_mean(skin: SkinSynthesiser, values_BCRR: torch.Tensor, region: str) -> torch.Tensor:
    """(B, C) mean over one of the face's regions."""
    weight = skin.regions.maps_GN[list(REGIONS).index(region)].view(1, 1, skin.drawing_size, -1)
    weight = nnf.avg_pool2d(weight, skin.drawing_size // skin.size)
    weight = weight * (weight > 0.5)
    return (values_BCRR * weight).sum((2, 3)) / weight.sum()


def digest(look) -> str:
    tensors = []
    look.map(lambda x: tensors.append(x) or x)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def test_maps_have_the_shapes_ranges_and_units_of_the_types(skins):
    for size, skin in skins.items():
        maps = skin(people(3), 0)
        for values in (maps.diffuse_albedo, maps.specular_albedo, maps.normals):
            assert values.shape == (3, 3, size, size)
            assert values.dtype == torch.float32
            assert torch.isfinite(values).all()
        assert maps.diffuse_albedo.min() >= 0
        assert maps.diffuse_albedo.max() <= 1
        assert maps.specular_albedo.min() >= 0
        assert maps.specular_albedo.max() <= 1
        assert torch.equal(maps.specular_albedo[:, 0], maps.specular_albedo[:, 2])
        torch.testing.assert_close(maps.normals.norm(dim=1), torch.ones(3, size, size), atol=1e-5, rtol=0)
        assert maps.normals[:, 2].min() > 0


def test_a_person_is_the_same_in_any_batch_and_order(skins):
    crowd = people(20)  # more than are painted at once
    together = skins[64](crowd, 5)
    order = torch.tensor([17, 3, 0])
    apart = skins[64](pick(crowd, order), 5)
    for name in ("diffuse_albedo", "specular_albedo", "normals"):
        torch.testing.assert_close(getattr(apart, name), getattr(together, name)[order], atol=1e-6, rtol=0)
    assert (skins[64](pick(crowd, order), 6).diffuse_albedo - apart.diffuse_albedo).abs().mean() > 0.01


def test_a_person_is_the_same_in_another_process():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_skin import digest, people, sample_look;"
        "print(digest(sample_look(people(3, 1_000_000_000), 4)))"
    )
    folder = __file__.rpartition("/")[0]
    other = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(sample_look(people(3, 1_000_000_000), 4))


def test_a_large_map_averages_to_the_small_one(skins):
    crowd = people(12)
    small, large = skins[64](crowd, 0), skins[256](crowd, 0).map(lambda x: nnf.avg_pool2d(x, 4))
    for name, limit in (("diffuse_albedo", 0.004), ("specular_albedo", 0.006), ("normals", 0.01)):
        difference = (getattr(small, name) - getattr(large, name)).abs()
        assert difference.mean() < limit, name
        spread = getattr(small, name).std(0).mean()
        assert difference.mean() < 0.35 * spread, name


def test_more_melanin_is_darker_in_every_channel():
    pigments = torch.stack([torch.linspace(0, 8, 50), torch.zeros(50), torch.zeros(50)])[None]
    albedo = pigments_to_albedo(pigments)[0]
    assert (albedo.diff(dim=1) < 0).all()
    assert (albedo[0] > albedo[1]).all()


def test_painted_skin_darkens_with_melanin(skins):
    look = sample_look(people(4, gender=0.0), 0)

    def cheek(tone: float) -> torch.Tensor:
        pigments = look.complexion.pigments.clone()
        pigments[:, 0] = melanin_of_tone(torch.tensor(tone))
        maps = skins[64].paint(replace(look, complexion=replace(look.complexion, pigments=pigments)), 0)
        return region_mean(skins[64], maps.diffuse_albedo, "cheek")

    assert (cheek(0.2) > 1.2 * cheek(0.5)).all()
    assert (cheek(0.5) > 1.2 * cheek(0.9)).all()


def test_ancestry_shifts_tone_but_individuals_overlap():
    africans, caucasians = (
        sample_look(people(300, race=race), 0).complexion.pigments[:, 0] for race in ([1.0, 0, 0], [0, 0, 1.0])
    )
    assert africans.mean() > 2 * caucasians.mean()
    assert africans.min() < caucasians.max()


def test_tones_are_the_classes_of_the_typology_angle():
    """Each sixth of the tone is one class, so its ends lie on the classes' edges."""
    melanin = melanin_of_tone(torch.linspace(0, 1, 7))
    torch.testing.assert_close(melanin, torch.tensor(MELANIN_STEPS))
    albedo = pigments_to_albedo(torch.stack([melanin, 0 * melanin, 0 * melanin])[None])[0].T
    assert typology_angle(lab_of_albedo(albedo))[1:-1] == pytest.approx(list(CLASSES.values())[:-1], abs=0.5)


def test_no_class_of_skin_tone_is_under_represented():
    pigments = sample_look(sample_population(0, torch.arange(2000)), 0).complexion.pigments
    shares = class_shares(typology_angle(lab_of_albedo(pigments_to_albedo(pigments[..., None])[..., 0])))
    assert min(shares.values()) > 0.11
    assert max(shares.values()) < 0.23


def with_trait(record: TensorRecord, path: str, value: float) -> TensorRecord:
    """A copy in which the trait at a dotted path is constant."""
    name, _, rest = path.partition(".")
    inner = getattr(record, name)
    return replace(record, **{name: with_trait(inner, rest, value) if rest else torch.full_like(inner, value)})


def painted(skin: SkinSynthesiser, traits: dict[str, float], **fixed) -> FaceMaps:
    """Maps of six people with traits set."""
    look = sample_look(people(6, **fixed), 3)
    for path, value in traits.items():
        look = with_trait(look, path, value)
    return skin.paint(look, 3)


def change(skin: SkinSynthesiser, path: str, low: float, high: float, **fixed) -> torch.Tensor:
    """(B, R, R) what raising one trait adds to the mean diffuse albedo."""
    before, after = (painted(skin, {path: value}, **fixed).diffuse_albedo.mean(1) for value in (low, high))
    return after - before


@pytest.mark.parametrize(
    ("path", "low", "high", "fixed"),
    [
        ("hair.brows.opacity", 0.3, 0.9, {"age": 0.1}),
        ("hair.beard.zones", 0.0, 0.8, {"gender": 1.0, "age": 0.1, "race": [0, 0.5, 0.5]}),
        ("eyes.socket", 0.0, 0.4, {}),
        ("eyes.bags", 0.0, 0.3, {}),
        ("eyes.lashes", 0.0, 0.9, {"race": [0, 0.5, 0.5]}),
        ("eyes.liner", 0.0, 0.9, {"race": [0, 0.5, 0.5]}),
        ("eyes.veins", 0.0, 0.2, {}),
        ("complexion.pigments", 0.5, 1.0, {}),
        ("relief.creases", 0.0, 0.8, {}),
    ],
)
def test_traits_darken_what_they_should(skins, path, low, high, fixed):
    added = change(skins[256], path, low, high, **fixed)
    darker, lighter = added.clamp_max(0).sum((1, 2)), added.clamp_min(0).sum((1, 2))
    assert (darker < -0.5).all()
    assert (lighter < 0.1 * -darker).all()


def test_vitiligo_lightens_patches_and_nothing_else(skins):
    added = change(skins[64], "complexion.patches", 0.0, -0.9, race=[1.0, 0, 0], gender=0.0)
    assert added.min() > -0.01
    share = (added > 0.05).float().mean((1, 2))
    assert (share < 0.5).all()
    assert share.max() > 0.02


def test_lower_hair_covers_more_of_the_forehead(skins):
    coverage = [
        skins[64].hairline(with_trait(sample_look(people(6), 3).hair.hairline, "height", height), wobble, wobble)
        for height, wobble in ((50.0, torch.zeros(6, 128**2)), (25.0, torch.zeros(6, 128**2)))
    ]
    assert (coverage[1] >= coverage[0]).all()
    assert (coverage[1].sum(1) > coverage[0].sum(1) + 20).all()


def test_hair_and_lips_stay_within_the_texel(skins):
    look, noise = sample_look(people(9, gender=1.0), 3), 4.0 * torch.ones(9, 1)
    brows, beard, mouth = skins[64].brows, skins[64].beard, skins[64].mouth
    for extreme in (noise, -noise):
        of_brows = brows(look.hair.brows, extreme.expand(-1, len(brows.patch)), extreme)
        of_beard = beard(look.hair.beard, *[extreme.expand(-1, 128**2)] * 2)
        for coverage in (of_brows, of_beard, mouth.mask(look.lips)):
            assert coverage.min() >= 0
            assert coverage.max() <= 1


def test_lipstick_gives_lips_its_colour(skins):
    look = with_trait(sample_look(people(6, gender=0.0), 3), "lips.stick_opacity", 1.0)
    mouth = skins[256].mouth
    lip = mouth.patch[(mouth.beyond(look.lips).amax(0) < -1.5) & (mouth.cavity > 3)]
    assert len(lip) > 20
    colours = skins[256].paint(look, 3).diffuse_albedo.flatten(2)[:, :, lip].mean(2)
    torch.testing.assert_close(colours, look.lips.stick, atol=0.05, rtol=0.1)


def test_the_spots_of_a_scar_make_an_even_line(face):
    """In the middle of the row the overlapping spots add up to the scar's own effect."""
    atlas = UvAtlas.build(*face, 256)
    looks = sample_look(people(200), 1).marks
    spots = Marks(*(getattr(looks, name)[:, -SCAR_SPOTS:] for name in ("centre", "radius", "melanin", "others")))
    scarred = spots.melanin.abs().amax(1) > 0.05
    assert 0.05 < scarred.float().mean() < 0.2
    blank = torch.zeros(1, SCAR_SPOTS, 2)
    line = torch.stack([torch.linspace(-12, 12, SCAR_SPOTS), torch.full((SCAR_SPOTS,), -30.0)], 1)[None]
    step = 24 / (SCAR_SPOTS - 1)
    even = Marks(line, torch.full((1, SCAR_SPOTS), step), torch.full((1, SCAR_SPOTS), 1 / (2 * torch.pi) ** 0.5), blank)
    ridge = MarkPainter(atlas)(even)[0, 0].view(256, 256).amax(0)
    middle = (atlas.chart_centres(0).abs() < 6).nonzero().squeeze(1)
    torch.testing.assert_close(ridge[middle], torch.ones(len(middle)), atol=0.06, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_people_are_the_same_on_a_gpu(face, skins):
    crowd = people(3)
    on_gpu = SkinSynthesiser(UvAtlas.build(*face, 64)).cuda()
    moved = SimpleNamespace(**{name: value.cuda() for name, value in vars(crowd).items()})
    expected = skins[64](crowd, 0)
    for name in ("diffuse_albedo", "specular_albedo", "normals"):
        got = getattr(on_gpu(moved, 0), name)
        assert got.is_cuda
        torch.testing.assert_close(got.cpu(), getattr(expected, name), atol=2e-3, rtol=0)


def test_lips_are_redder_than_cheeks(skins):
    crowd = people(9, gender=1.0, age=0.2, race=[0.0, 0.4, 0.6])
    look = sample_look(crowd, 1)
    beardless = replace(look.hair.beard, zones=torch.zeros_like(look.hair.beard.zones))
    maps = skins[256].paint(replace(look, hair=replace(look.hair, beard=beardless)), 1)
    mouth = skins[256].mouth
    lip = mouth.patch[(mouth.outside < -1.5) & (mouth.cavity > 1.5)]
    lips = maps.diffuse_albedo.flatten(2)[:, :, lip].mean(2)
    cheeks = region_mean(skins[256], maps.diffuse_albedo, "cheek")
    assert (lips[:, 0] / lips[:, 1] > cheeks[:, 0] / cheeks[:, 1]).all()


def test_people_vary_in_colour_and_in_every_part_of_the_face(skins):
    diffuse = skins[64](people(60), 2).to_images()["diffuse"]
    assert diffuse.std(0).mean() > 0.1
    same = skins[64](people(60, race=[0, 0, 1.0], gender=0.0, age=0.3), 2).to_images()["diffuse"]
    assert same.std(0).mean() > 0.05
    relative = same / same.mean((2, 3), keepdim=True)  # what is left without the overall tone
    assert relative.std(0).mean() > 0.03


def test_age_deepens_relief_and_greys_hair(skins):
    young, old = (people(12, age=age, gender=1.0) for age in (0.05, 0.95))
    slope = [skins[256](crowd, 0).normals[:, :2].square().mean() for crowd in (young, old)]
    assert slope[1] > 1.5 * slope[0]
    young_hair, old_hair = (sample_look(crowd, 0).hair.hairline.colour for crowd in (young, old))
    assert (old_hair.mean(1) > young_hair.mean(1)).all()


def test_beards_are_for_men_and_make_up_is_for_women():
    women, men = (sample_look(people(200, gender=gender), 0) for gender in (0.0, 1.0))
    assert women.hair.beard.zones.max() < 0.01
    assert (men.hair.beard.zones.amax(1) > 0.3).float().mean() > 0.4
    assert men.lips.stick_opacity.max() == 0
    assert (women.lips.stick_opacity > 0.2).float().mean() > 0.2


def test_without_noise_and_marks_the_two_halves_are_alike(skins):
    look = sample_look(people(2, gender=0.0), 0)
    calm = replace(
        look,
        marks=replace(look.marks, melanin=0 * look.marks.melanin, others=0 * look.marks.others),
        complexion=replace(
            look.complexion,
            mottle=torch.zeros_like(look.complexion.mottle),
            gloss_mottle=torch.zeros_like(look.complexion.gloss_mottle),
            patches=torch.zeros_like(look.complexion.patches),
        ),
        hair=replace(
            look.hair,
            brows=replace(look.hair.brows, hairiness=torch.zeros(2), ragged=torch.zeros(2)),
            hairline=replace(look.hair.hairline, opacity=torch.zeros(2)),
        ),
        eyes=replace(look.eyes, fibres=torch.zeros(2), veins=torch.zeros(2)),
    )
    diffuse = skins[64].paint(calm, 0).diffuse_albedo
    assert (diffuse - diffuse.flip(3)).abs().mean() < 0.002


def test_hair_darkens_with_eumelanin_and_reddens_with_pheomelanin():
    levels, none = torch.linspace(0, 1, 5), torch.zeros(5)
    assert (hair_colour(levels, none, none).diff(dim=0) < 0).all()
    red = hair_colour(none + 0.2, levels, none)
    assert ((red[:, 0] / red[:, 2]).diff() > 0).all()


def test_a_topology_without_the_regions_is_refused(face):
    mean, topology = face
    with pytest.raises(ValueError, match="skin needs the region 'eyes' of the topology, which has"):
        SkinSynthesiser(UvAtlas.build(mean, replace(topology, regions={}), 64))


def test_geometry_helpers():
    assert [MIRROR[i] for i in (0, 17, 27, 31, 36, 41, 48, 59, 60, 67)] == [16, 26, 27, 35, 45, 46, 54, 55, 64, 65]
    assert [MIRROR[MIRROR[i]] for i in range(68)] == list(range(68))
    square = torch.tensor([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    points = torch.tensor([[1.0, 1], [3, 1], [-1, 1], [1, 3]])
    assert inside_polygon(points, square).tolist() == [True, False, False, False]
    distance, along = nearest_on_polyline(points, square)
    torch.testing.assert_close(distance, torch.tensor([1.0, 1.0, (2.0) ** 0.5, 1.0]))
    torch.testing.assert_close(along[1], torch.tensor(3.0))
    line = smooth_curve(torch.tensor([[0.0, 0], [1, 2], [2, 4]]))
    torch.testing.assert_close(line[:, 1], 2 * line[:, 0])
    directions = nnf.normalize(torch.randn(50, 3, generator=torch.manual_seed(0)), dim=1)
    centre, radius = fit_sphere(torch.tensor([3.0, -2.0, 5.0]) + 11 * directions)
    torch.testing.assert_close(centre, torch.tensor([3.0, -2.0, 5.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(radius, torch.tensor(11.0), atol=1e-4, rtol=0)

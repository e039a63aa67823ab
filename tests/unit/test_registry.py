"""The registry: typed configs from constructors, one builder, nothing unregistered is ever called."""

import pytest
from omegaconf import OmegaConf

from fitdiff import registry
from fitdiff.registry import ComponentError, build, config_of, register


@pytest.fixture(autouse=True)
def _own_components(monkeypatch):
    registry.load_plugins()  # once a process: not into the copy that is dropped
    monkeypatch.setattr(registry, "_components", dict(registry._components))


class Toy:
    def __init__(self, size: int, *, width: int = 3, sides: tuple[int, ...] = (1, 2), path: str | None = None) -> None:
        self.size, self.width, self.sides, self.path = size, width, sides, path


def test_parameters_with_defaults_become_typed_config_fields():
    register("toy", "plain")(Toy)
    node = OmegaConf.structured(registry._config_class(Toy))
    assert OmegaConf.to_container(node) == {
        "_target_": f"{__name__}.Toy",
        "width": 3,
        "sides": [1, 2],
        "path": None,
    }
    with pytest.raises(Exception, match="could not be converted to Integer"):
        node.width = "wide"


def test_build_passes_config_and_runtime_objects():
    register("toy", "plain")(Toy)
    toy = build({"_target_": f"{__name__}.Toy", "width": 5}, "toy", size=7)
    assert (toy.size, toy.width, toy.sides) == (7, 5, (1, 2))


def test_a_dataclass_is_passed_as_it_is():
    from fitdiff.types import Detection

    register("toy", "plain")(Toy)
    face = Detection((0.0, 0.0, 1.0, 1.0), 1.0)
    assert build({"_target_": f"{__name__}.Toy"}, "toy", size=face).size is face


def test_what_a_constructor_refuses_is_a_component_error_with_its_words():
    class DamagedError(ValueError):
        pass

    class Fussy:
        def __init__(self, *, size: int = 1) -> None:
            if size < 0:
                raise DamagedError("size")
            raise ValueError("size must be 3")

    register("toy", "fussy")(Fussy)
    target = f"{__name__}.{Fussy.__qualname__}"
    with pytest.raises(ComponentError, match="toy: size must be 3"):
        build({"_target_": target}, "toy")
    with pytest.raises(DamagedError):
        build({"_target_": target, "size": -1}, "toy")


def test_build_names_missing_runtime_objects():
    register("toy", "plain")(Toy)
    with pytest.raises(ComponentError, match=r"needs run-time objects \['size'\]"):
        build({"_target_": f"{__name__}.Toy"}, "toy")


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "fitdiff.registry.build", None])
def test_unregistered_targets_are_refused(target):
    register("toy", "plain")(Toy)
    with pytest.raises(ComponentError, match="not a registered toy"):
        build({"_target_": target, "command": "true"}, "toy", size=1)


def test_a_component_of_another_kind_is_refused():
    register("toy", "plain")(Toy)
    with pytest.raises(ComponentError, match="not a registered renderer"):
        build({"_target_": f"{__name__}.Toy"}, "renderer", size=1)


@pytest.mark.parametrize(
    "smuggled",
    [{"path": {"_target_": "os.getcwd"}}, {"sides": [{"_target_": "os.getcwd"}]}, {"_args_": [1]}, {"_partial_": True}],
)
def test_nested_targets_and_hydra_keywords_are_refused(smuggled):
    register("toy", "plain")(Toy)
    with pytest.raises(ComponentError, match="refused"):
        build({"_target_": f"{__name__}.Toy", **smuggled}, "toy", size=1)


def test_texts_of_a_plain_config_are_not_resolved(monkeypatch):
    register("toy", "plain")(Toy)
    monkeypatch.setenv("SECRET", "42")
    for text in ("${oc.env:SECRET}", "${oc.decode:${oc.env:SECRET}}", "${hydra:runtime.cwd}", "${width}"):
        assert build({"_target_": f"{__name__}.Toy", "path": text}, "toy", size=1).path == text
    # The user's own command line is composed by Hydra, and resolved.
    composed = OmegaConf.create({"_target_": f"{__name__}.Toy", "path": "${oc.env:SECRET}"})
    assert build(composed, "toy", size=1).path == "42"


def test_a_component_owns_what_it_gets():
    register("toy", "plain")(Toy)
    node = {"_target_": f"{__name__}.Toy", "sides": [1, 2]}
    build(node, "toy", size=1).sides.append(3)
    assert node["sides"] == [1, 2]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("os.system", "got 'os.system', expected a mapping"),
        ({"_target_": f"{__name__}.Toy", "size": 1}, r"has no option \['size'\]"),
        (
            {"_target_": f"{__name__}.Toy", "widht": 1},
            r"no option .*widht.*it has .*width",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(node, message):
    register("toy", "plain")(Toy)
    with pytest.raises(ComponentError, match=message):
        build(node, "toy", size=1)


def test_a_taken_name_names_both_modules():
    class Other:
        def __init__(self) -> None: ...

    register("toy", "plain")(Toy)
    with pytest.raises(ComponentError, match="registered twice"):
        register("toy", "plain")(Other)


def test_a_default_without_annotation_is_an_error():
    class Careless:
        def __init__(self, size=3): ...

    with pytest.raises(ComponentError, match="'size' has a default but no annotation"):
        register("toy", "careless")(Careless)


def test_a_component_must_satisfy_its_protocol(monkeypatch):
    register("denoiser", "not_callable")(Toy)
    with pytest.raises(ComponentError, match="does not satisfy Denoiser: it lacks __call__"):
        build({"_target_": f"{__name__}.Toy"}, "denoiser", size=1)


def test_unknown_names_list_the_options():
    with pytest.raises(ComponentError, match=r"Available: .*torch"):
        config_of("renderer", "mitsuba")


def test_every_default_config_is_plain_data():
    registry.load_plugins()
    for kind in registry.kinds():
        for name in registry.names(kind):
            node = config_of(kind, name)
            assert node["_target_"].startswith(("fitdiff.", __name__)), (kind, name)

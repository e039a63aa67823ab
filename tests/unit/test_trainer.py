"""The loop on a toy stage: it learns, and no crash, signal or number that is not finite costs more than it must."""

import os
import shutil
import signal
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import nn

from fitdiff.tracker import NoTracker
from fitdiff.training.health import TrainingError
from fitdiff.training.interruption import InterruptedRun
from fitdiff.training.log import read_log
from fitdiff.training.trainer import Trainer
from tests.toy_stage import ToyStage

unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows kills by SIGTERM")


class CrashError(Exception):
    pass


class Sabotaged(ToyStage):
    """Calls `sabotage(losses)` in one step."""

    def __init__(self, at, sabotage):
        super().__init__()
        self.at, self.sabotage = at, sabotage

    def losses(self, batch, step):
        for name, loss, values in super().losses(batch, step):
            yield name, loss * self.sabotage() if step == self.at else loss, values


def crash():
    raise CrashError


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    return 1.0


def train(folder, stage, **options):
    trainer = Trainer(**{"cpu": True, "log_every": 10, "ema_half_life": 80, "preview_every": 1000, **options})
    with trainer.interruption:
        return trainer.run(stage, folder, {}, {}, 0, NoTracker())


def checkpoints(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def assert_same(stage, other, **tolerance):
    for name, module in stage.modules.items():
        for key, value in module.state_dict().items():
            got = other.modules[name].state_dict()[key]
            assert torch.allclose(value, got, **tolerance) if tolerance else torch.equal(value, got), (name, key)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    stage = ToyStage()
    stage.trained = train(tmp_path_factory.mktemp("whole"), stage)
    return stage


def test_it_learns_and_averages(whole, tmp_path):
    average = whole.trained.averages["net"].weight.item()
    assert whole.net.weight.item() == pytest.approx(2, abs=0.1)
    assert average == pytest.approx(2, abs=0.3)
    assert average != whole.net.weight.item()
    assert whole.trained.metrics == {"error": pytest.approx(abs(average - 2))}


def test_a_crash_costs_nothing_but_the_steps_since_the_checkpoint(whole, tmp_path):
    with pytest.raises(CrashError):
        train(tmp_path, Sabotaged(33, crash), preview_every=7, checkpoint_every=20)
    assert checkpoints(tmp_path) == [20]
    resumed = ToyStage()
    # Other preview, evaluation and checkpoint intervals, and processes that read ahead, change no bit of the result.
    trained = train(tmp_path, resumed, preview_every=3, checkpoint_every=9, evaluate_every=7, loader_workers=2)
    assert_same(whole, resumed)
    assert trained.metrics == whole.trained.metrics
    assert (tmp_path / "previews" / "dot-00000060.png").exists()


def test_everything_is_logged_once_and_the_best_is_kept(tmp_path):
    options = {"checkpoint_every": 10, "evaluate_every": 6, "keep_last": 1, "keep_best": 1}
    with pytest.raises(CrashError):
        train(tmp_path, Sabotaged(47, crash), **options)
    train(tmp_path, ToyStage(), **options)
    entries = list(read_log(tmp_path / "log.jsonl"))
    held_out = {entry["step"]: entry["held_out/error"] for entry in entries if "held_out/error" in entry}
    assert list(held_out) == list(range(6, 61, 6))
    assert [entry["step"] for entry in entries if "loss" in entry] == list(range(10, 61, 10))
    assert all(
        entry["learning_rate"] == 0.1 and entry["samples_per_second"] > 0 for entry in entries if "loss" in entry
    )
    assert checkpoints(tmp_path) == sorted({60, min(held_out, key=held_out.get)})


def test_accumulation_gives_the_same_weights_and_logs(whole, tmp_path):
    accumulated, plain = ToyStage(), ToyStage()
    train(tmp_path / "a", accumulated, gradient_accumulation=4)
    train(tmp_path / "b", plain)
    assert_same(whole, accumulated, atol=1e-5)
    for mine, other in zip(*(read_log(tmp_path / name / "log.jsonl") for name in "ab"), strict=True):
        speeds = mine.pop("samples_per_second", 1.0), other.pop("samples_per_second", 1.0)
        assert min(speeds) > 0
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_an_indivisible_batch_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"stage.toy.batch_size=8 must be a multiple of 1 processes x .*=3"):
        train(tmp_path, ToyStage(), gradient_accumulation=3)


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_half_precision_is_of_the_training_alone(whole, tmp_path, fresh_accelerate):
    stage = ToyStage()
    train(tmp_path, stage, mixed_precision="bf16")
    assert stage.net.weight.item() == pytest.approx(2, abs=0.1)
    assert stage.net.weight.item() != whole.net.weight.item()
    # A number that bfloat16 cannot hold comes through afterwards.
    assert stage.net(torch.tensor([[1.001]])) == stage.net.weight * 1.001 + stage.net.bias


@pytest.mark.parametrize("precision", ["fp16", "fp17"])
def test_precision_that_the_device_lacks_is_refused(fresh_accelerate, precision):
    with pytest.raises(TrainingError, match=f"trainer.mixed_precision={precision}"):
        Trainer(cpu=True, mixed_precision=precision)


# Step 30 is one after which a checkpoint is due: it must not be saved.
@pytest.mark.parametrize(("step", "good"), [(29, 20), (33, 30)])
def test_numbers_that_are_not_finite_end_the_run_and_are_not_saved(whole, tmp_path, step, good):
    with pytest.raises(TrainingError, match=rf"step {step + 1}: total_net.* not finite, .*step-000000{good}, is good"):
        train(tmp_path, Sabotaged(step, lambda: float("nan")), checkpoint_every=10)
    assert max(checkpoints(tmp_path)) == good
    tensors = load_file(tmp_path / f"step-000000{good}" / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    resumed = ToyStage()
    train(tmp_path, resumed)
    assert_same(whole, resumed)


def test_a_step_can_be_left_out(tmp_path):
    def train_with(at, folder, **options):
        return train(folder, Sabotaged(at, lambda: float("nan")), checkpoint_every=10, **options)

    with pytest.raises(TrainingError, match=r"with trainer.skip_steps=\[34\] it continues"):
        train_with(33, tmp_path / "a")
    train_with(33, tmp_path / "a", skip_steps=(34,))
    entries = list(read_log(tmp_path / "a" / "log.jsonl"))
    assert [entry["step"] for entry in entries if entry.get("skipped")] == [34]
    assert all(entry["loss"] > 0 for entry in entries if entry["step"] == 40 and "learning_rate" in entry)
    with pytest.raises(TrainingError, match=r"step 41: .*with trainer.skip_steps=\[34,41\] it continues"):
        train_with(40, tmp_path / "b", skip_steps=(34,))
    # Leaving the 60th out leaves the weights of the 59th.
    last, before = Sabotaged(59, lambda: float("nan")), ToyStage()
    train(tmp_path / "c", last, skip_steps=(60,))
    train(tmp_path / "d", before, checkpoint_every=59)
    tensors = load_file(tmp_path / "d" / "step-00000059" / "state.safetensors")
    assert last.net.weight.item() == tensors["net/weight"].item() != before.net.weight.item()


def test_a_launcher_that_shards_weights_is_refused(fresh_accelerate, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.distributed_type", DistributedType.FSDP)
    with pytest.raises(TrainingError, match=r"FSDP.*give launch/ddp.yaml"):
        Trainer(cpu=True)


@unix
def test_a_signal_saves_the_step_under_way(whole, tmp_path):
    with pytest.raises(InterruptedRun, match="stopped after step 18 of 60 of toy, which is saved"):
        train(tmp_path, Sabotaged(17, terminate))
    assert checkpoints(tmp_path) == [18]
    resumed = ToyStage()
    train(tmp_path, resumed)
    assert_same(whole, resumed)


@unix
@pytest.mark.parametrize(("during", "saved"), [(20, 21), (60, 60)])
def test_an_evaluation_gives_way_to_a_signal(whole, tmp_path, during, saved):
    class Stage(ToyStage):
        evaluations = 0

        def evaluate(self, averages):
            self.evaluations += 1
            if self.evaluations == during / 20:
                terminate()
                pytest.fail("the evaluation went on")
            return super().evaluate(averages)

    with pytest.raises(InterruptedRun):
        train(tmp_path, Stage(), evaluate_every=20)
    assert max(checkpoints(tmp_path)) == saved
    resumed = ToyStage()
    assert train(tmp_path, resumed).metrics == whole.trained.metrics
    assert_same(whole, resumed)
    evaluated = [entry["step"] for entry in read_log(tmp_path / "log.jsonl") if "held_out/error" in entry]
    assert evaluated == sorted(set(evaluated))
    assert evaluated[-1] == 60
    size = (tmp_path / "log.jsonl").stat().st_size
    train(tmp_path, ToyStage())  # as after a kill between the last checkpoint and the stage's result
    assert (tmp_path / "log.jsonl").stat().st_size == size


class Convolutions(nn.Module):
    """A network that is also called by another method than forward, as autoencoders are."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 1, 3, padding=1)

    def encode(self, x):
        return torch.nn.functional.silu(self.encoder(x))

    def forward(self, x):
        return self.decoder(self.encode(x))


class ConvolutionStage(ToyStage):
    def __init__(self):
        super().__init__(steps=12)
        self.net = Convolutions()
        self.modules = {"net": self.net}

    def losses(self, batch, step):
        x = batch["x"][:, None].repeat(1, 1, 8)
        loss = (self.modules["net"](x) - 2 * x).square().mean() + self.net.encode(x).square().mean()
        (slope,) = torch.autograd.grad(loss, self.net.decoder.weight, retain_graph=True)  # as the adaptive weight does
        yield "net", loss * (1 + slope.detach().norm()), {"loss": loss}

    def evaluate(self, averages):
        return {"error": averages["net"](torch.ones(1, 1, 8)).mean().item()}


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on a CPU needs g++")
def test_compiled_networks_learn_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # a pool of compilers takes seconds to start
    eager, compiled = ConvolutionStage(), ConvolutionStage()
    metrics = train(tmp_path / "eager", eager).metrics
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    assert train(tmp_path / "compiled", compiled, compile=True).metrics == pytest.approx(metrics, abs=1e-5)
    assert graphs["unique_graphs"] > 0
    assert_same(eager, compiled, atol=1e-5)
    (file,) = (tmp_path / "compiled").glob("step-*/state.safetensors")
    assert "net/encoder.weight" in load_file(file)

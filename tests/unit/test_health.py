"""Numbers that are not finite are named with step and samples; lack of memory with the settings that matter."""

import pytest
import torch

from fitdiff.training.health import TrainingError, Watch, is_out_of_memory, memory_advice


class Processes:
    """Stands in for Accelerator: as many processes, of which only one has the numbers given."""

    device, mixed_precision = torch.device("cpu"), "fp16"

    def __init__(self, world=1, rank=0):
        self.world, self.rank = world, rank

    def gather(self, row):
        return torch.cat([row if rank == self.rank else torch.zeros_like(row) for rank in range(self.world)])


def watch(world=1, rank=0, patience=0):
    keys = lambda step: [100 * step + row for row in range(4)]  # noqa: E731
    return Watch(Processes(world, rank), keys, lambda: None, patience)


def look(watch, step, loss=1.0, norm=1.0, stop=False):
    watch.submit(step, {"loss": torch.tensor(loss)}, {"grad_norm_net": torch.tensor(norm)}, stop)
    watch.judge(wait=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_term_step_and_samples_of_the_guilty_process_are_named(value):
    look(watch(), 6)
    with pytest.raises(TrainingError, match=r"step 8: loss not finite, with training samples \[700, 701, 702, 703\]"):
        look(watch(), 7, loss=value)
    with pytest.raises(TrainingError, match=r"step 8: loss not finite, with training samples \[702, 703\]"):
        look(watch(world=2, rank=1), 7, loss=value)


def test_gradients_may_overflow_as_long_as_a_scaler_can_help():
    patient, nan = watch(patience=2), float("nan")
    for step, norm in enumerate((nan, nan, 1.0, nan, nan)):
        look(patient, step, norm=norm)
    with pytest.raises(TrainingError, match="step 6: grad_norm_net not finite"):
        look(patient, 5, norm=nan)
    with pytest.raises(TrainingError, match="step 1: loss"):
        look(watch(patience=2), 0, loss=nan)


def test_one_process_that_must_stop_stops_all():
    other = watch(world=2, rank=1)
    look(other, 0)
    assert not other.stop
    look(other, 1, stop=True)
    assert other.stop


def test_on_a_gpu_numbers_are_judged_one_step_late_unless_a_checkpoint_waits():
    late = watch()
    late._late = 1
    look(late, 0, loss=float("nan"))
    with pytest.raises(TrainingError, match="step 1"):
        look(late, 1)
    late = watch()
    late._late = 1
    late.submit(0, {"loss": torch.tensor(float("nan"))}, {}, False)
    with pytest.raises(TrainingError, match="step 1"):
        late.judge(wait=True)


def test_the_allocators_errors_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_the_advice_keeps_the_training_the_same_first():
    config = {
        "stage": {"diffusion": {"batch_size": 24, "render_samples": None}, "autoencoder": {"batch_size": 8}},
        "trainer": {"gradient_accumulation": 1, "mixed_precision": "no"},
        "autoencoder": {"checkpoint_activations": False},
    }
    advice = memory_advice(config, "diffusion", processes=8)
    assert "A batch of 24 over 8 process(es) x trainer.gradient_accumulation=1 is 3 sample(s) at once" in advice
    assert "trainer.gradient_accumulation=3 (1 at once), autoencoder.checkpoint_activations=true, more" in advice
    assert "stage.diffusion.batch_size=24, stage.diffusion.render_samples=None, trainer.mixed_precision=no" in advice
    config["stage"]["autoencoder"]["adversarial_weight"] = 0.8
    advice = memory_advice(config, "diffusion", processes=8)
    assert "The same training in less memory: autoencoder.checkpoint_activations=true, more processes" in advice
    assert advice.endswith(
        "=3 (1 at once), which trains the autoencoder anew: its adversary sees one micro-batch at a time"
    )
    config["trainer"]["gradient_accumulation"] = 8
    assert "gradient_accumulation=16" not in memory_advice(config, "autoencoder", processes=1)

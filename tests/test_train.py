# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sfumato as sf
from narrowing import Narrowing
from nets import small_net
from sfumato.errors import ConfigError, ModelError, TrainingError, WeightsError
from sfumato.files import read_tensors
from sfumato.settings import Optimizer, Schedule, Train
from sfumato.train import assemble, fit
from sfumato.types import Epoch, Step


def trained(split: sf.Split, data: sf.Data, settings: Train, **options: object) -> dict[str, Tensor]:
    target = assemble(split, data, [sf.Noise(sigma=0.1)], seed=5)
    fit(target, data, settings, seed=5, **options)
    return target.state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_the_task(small_split: sf.Split, blobs: sf.Data) -> None:
    from sfumato.utility import accuracy

    settings = Train(epochs=5, batch_size=32)
    assert accuracy(sf.harden(small_split, blobs, train=settings), blobs.part("test"), 0).value > 0.95


def test_the_seed_decides_every_bit(small_split: sf.Split, blobs: sf.Data) -> None:
    settings = Train(epochs=2, batch_size=32, augment=sf.Augment(crop=1, rotation=5.0))
    assert equal(trained(small_split, blobs, settings), trained(small_split, blobs, settings))
    other = sf.harden(small_split, blobs, defenses=[sf.Noise(sigma=0.1)], train=settings, seed=6)
    assert not equal(trained(small_split, blobs, settings), other.state_dict())


def test_training_does_not_disturb_the_callers_random_numbers(small_split: sf.Split, blobs: sf.Data) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sf.harden(small_split, blobs, epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_bits(
    optimizer: str, small_split: sf.Split, blobs: sf.Data, tmp_path: Path
) -> None:
    settings = Train(epochs=3, batch_size=32, optimizer=Optimizer(name=optimizer, learning_rate=0.01), augment=sf.Augment(crop=1))
    whole = trained(small_split, blobs, settings)

    class StopError(Exception):
        pass

    for epochs in (1, 2):
        path = tmp_path / f"{epochs}.safetensors"
        steps = 6 * epochs + 3

        def stop(done: int, total: int, last: int = steps) -> None:
            if done == last:
                raise StopError

        with pytest.raises(StopError):
            trained(small_split, blobs, settings, checkpoint=path, watch=stop)
        assert path.exists()
        assert equal(trained(small_split, blobs, settings, checkpoint=path), whole)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_whose_shapes_change_goes_on_to_the_same_bits_before_and_after(
    optimizer: str, small_split: sf.Split, blobs: sf.Data, tmp_path: Path
) -> None:
    settings = Train(epochs=2, finetune=2, batch_size=32, optimizer=Optimizer(name=optimizer, learning_rate=0.01))

    def run(path: Path, last: int | None = None) -> tuple[dict[str, Tensor], list[str]]:
        def stop(done: int, total: int) -> None:
            assert total == 24
            if done == last:
                raise KeyboardInterrupt

        target = assemble(small_split, blobs, [Narrowing(), sf.ResSFL(pretrain=1, blocks=0, channels=4)], seed=5)
        fit(target, blobs, settings, seed=5, checkpoint=path, watch=stop)
        return target.state_dict(), next(iter(target.defense)).seen

    whole, seen = run(tmp_path / "whole")
    assert whole["split.head.0.weight"].shape == (3, 1, 3, 3)
    # what defenses remember fits the shapes of before, so that they begin again
    assert seen == ["begin", "epoch 0 of 2", "epoch 1 of 2", "finish", "begin", "epoch 2 of 4", "epoch 3 of 4"]
    for epoch in range(1, 4):
        path = tmp_path / f"{epoch}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            run(path, last=6 * epoch + 3)
        weights, seen = run(path)
        assert equal(weights, whole)
        assert seen.count("finish") == (1 if epoch <= 2 else 0)
    assert equal(run(tmp_path / "whole")[0], whole), "a run that was stopped after its last epoch"


def test_what_forgets_at_the_end_begins_again_in_fine_tuning(small_split: sf.Split, blobs: sf.Data) -> None:
    noisy = [Narrowing(), sf.Noise(sigma=0.1), sf.CEM()]
    hardened = sf.harden(small_split, blobs, defenses=noisy, train=Train(epochs=1, finetune=2, batch_size=32))
    assert hardened.split.head(torch.zeros(1, 1, 8, 8)).shape == (1, 4, 8, 8)


def test_fine_tuning_goes_through_the_schedule_from_its_start(small_split: sf.Split, blobs: sf.Data) -> None:
    settings = Train(
        epochs=2, finetune=4, batch_size=32, schedule=Schedule(name="step", warmup=0.0, milestones=(0.5,), gamma=0.1)
    )
    target = assemble(small_split, blobs, [], seed=0)
    facts = fit(target, blobs, settings, seed=0)
    assert [epoch.number for epoch in facts] == list(range(6))
    assert [epoch.learning_rate for epoch in facts] == pytest.approx([0.05, 0.005, 0.05, 0.05, 0.005, 0.005])


def test_fine_tuning_trains_what_finish_left_with_a_fresh_optimizer(small_split: sf.Split, blobs: sf.Data) -> None:
    def run(finetune: int) -> sf.Target:
        return sf.harden(small_split, blobs, defenses=[Narrowing()], train=Train(epochs=1, finetune=finetune, batch_size=32))

    finished, tuned = (run(finetune).state_dict() for finetune in (0, 1))
    assert {name: value.shape for name, value in finished.items()} == {name: value.shape for name, value in tuned.items()}
    assert not any(torch.equal(finished[name], tuned[name]) for name in finished)


def test_kill_minus_nine_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        textwrap.dedent("""
        data.name = "digits"
        model = { name = "lenet5", cut = "c1" }
        train = { epochs = 3, batch_size = 500 }
        defenses = [{ name = "noise", sigma = 0.1 }]
        """)
    )

    def command(runs: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "sfumato", "train", str(recipe), "--runs", str(tmp_path / runs), *options]

    assert subprocess.run(command("whole"), capture_output=True).returncode == 0
    killed = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("stages/*/checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("small/*")), "a run that was killed must not look done"
    refused = subprocess.run(command("killed"), capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    assert subprocess.run(command("killed", "--resume"), capture_output=True).returncode == 0
    first, second = (read_tensors(tmp_path / runs / "small" / "weights.safetensors")[0] for runs in ("whole", "killed"))
    assert equal(first, second)


def test_a_checkpoint_of_another_run_is_refused(small_split: sf.Split, blobs: sf.Data, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    trained(small_split, blobs, Train(epochs=1), checkpoint=path, definition="one")
    with pytest.raises(WeightsError, match="checkpoint of another recipe"):
        trained(small_split, blobs, Train(epochs=2), checkpoint=path, definition="other")


class Exploding(sf.Defense):
    """A penalty that is not finite from a step on."""

    name = "exploding"

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def penalty(self, step: Step) -> Tensor | None:
        return step.z.sum() * float("nan") if step.index >= self.at else None


@pytest.mark.parametrize(("at", "kept"), [(2, "there is no checkpoint yet"), (8, "the last good checkpoint is")])
def test_a_loss_that_is_not_finite_ends_the_run(
    at: int, kept: str, small_split: sf.Split, blobs: sf.Data, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    target = assemble(small_split, blobs, [Exploding(at)], seed=0)
    with pytest.raises(TrainingError, match=f"loss is nan at epoch {at // 6}, step {at % 6} of 6; {kept}") as error:
        fit(target, blobs, Train(epochs=3, batch_size=32), seed=0, checkpoint=path)
    assert path.exists() == (at >= 6)
    assert (str(path) in str(error.value)) == (at >= 6)
    if path.exists():
        assert all(value.isfinite().all() for value in read_tensors(path)[0].values())


@pytest.mark.parametrize("at", [0, 1, 2, 3, 5])
def test_a_loss_is_named_wherever_it_falls_between_the_checks(
    at: int, small_split: sf.Split, blobs: sf.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.loop._CHECK_EVERY", 3)  # 6 steps: the last check leaves nothing over
    target = assemble(small_split, blobs, [Exploding(at)], seed=0)
    with pytest.raises(TrainingError, match=f"loss is nan at epoch 0, step {at} of 6"):
        fit(target, blobs, Train(epochs=1, batch_size=32), seed=0)


class Noting(sf.Defense):
    """It notes which hooks are called, and in which grad mode."""

    name = "noting"

    def __init__(self, pictures: int) -> None:
        super().__init__()
        self.pictures = pictures
        self.seen: list[str] = []
        self.grad: dict[str, bool] = {}

    def _note(self, hook: str) -> None:
        self.seen.append(hook)
        self.grad[hook] = torch.is_grad_enabled()

    def begin_epoch(self, epoch: Epoch) -> None:
        self._note("begin_epoch")
        (x, z, y), *_ = epoch.batches()
        assert x.shape[1:] == (1, 8, 8)
        assert z.shape[1:] == (4, 8, 8)
        assert len(x) == len(z) == len(y) == self.pictures
        assert x.mean() < 0.5, "pictures outside of a step are not perturbed"

    def end_epoch(self, epoch: Epoch) -> None:
        self._note("end_epoch")

    def perturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        self._note("perturb")
        return 1 - x

    def before_step(self, step: Step) -> None:
        self._note("before_step")
        assert step.z.requires_grad
        assert step.x.mean() > 0.5, "what the head was given is perturbed"

    def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        self._note("protect")
        return z

    def penalty(self, step: Step) -> None:
        self._note("penalty")

    def after_step(self, step: Step) -> None:
        self._note("after_step")

    def finish(self, model: sf.Split) -> None:
        self._note("finish")


def test_hooks_are_called_in_their_order(small_split: sf.Split, blobs: sf.Data) -> None:
    target = assemble(small_split, blobs, [Noting(len(blobs.part("private")))], seed=0)
    fit(target, blobs, Train(epochs=1, batch_size=100), seed=0)
    (part,) = target.defense
    step = ["perturb", "protect", "before_step", "penalty", "after_step"]
    assert part.seen == ["begin_epoch", *step, *step, "end_epoch", "finish"]
    assert {hook for hook, on in part.grad.items() if on} == {"protect", "before_step", "penalty"}


def test_a_defenses_own_parameters_are_trained(small_split: sf.Split, blobs: sf.Data) -> None:
    class Learned(sf.Defense):
        name = "learned"

        def __init__(self, hidden: bool) -> None:
            super().__init__()
            self.scale, self.hidden = nn.Parameter(torch.ones(())), hidden

        def learned(self) -> list[nn.Parameter]:
            return [] if self.hidden else [self.scale]

        def protect(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
            return z * self.scale

    for hidden in (False, True):
        (part,) = sf.harden(small_split, blobs, defenses=[Learned(hidden)], epochs=1).defense
        assert (part.scale.item() == 1) == hidden


def test_a_method_may_train_while_it_goes_over_the_batches_of_an_epoch(small_split: sf.Split, blobs: sf.Data) -> None:
    class Surrogate(sf.Defense):
        name = "surrogate"

        def begin_epoch(self, epoch: Epoch) -> None:
            inverse = nn.Linear(256, 64)
            with torch.enable_grad():
                for x, z, _ in epoch.batches():
                    torch.nn.functional.mse_loss(inverse(z.flatten(1)), x.flatten(1)).backward()
            assert inverse.weight.grad is not None

    assert isinstance(sf.harden(small_split, blobs, defenses=[Surrogate()], epochs=1), sf.Target)


def test_a_single_picture_that_is_left_joins_the_last_batch(blobs: sf.Data) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    count = len(blobs.part("private"))
    trained = sf.harden(sf.split(net, at="1"), blobs, train=Train(epochs=1, batch_size=count - 1))
    assert isinstance(trained, sf.Target)


def test_no_epochs_are_refused(small_split: sf.Split, blobs: sf.Data) -> None:
    with pytest.raises(ConfigError, match="epochs and batch_size must be at least 1"):
        sf.harden(small_split, blobs, epochs=0)


def test_a_checkpoint_of_other_settings_is_refused_though_nobody_named_the_run(
    small_split: sf.Split, blobs: sf.Data, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    trained(small_split, blobs, Train(epochs=1), checkpoint=path)
    with pytest.raises(WeightsError, match="checkpoint of another recipe"):
        trained(small_split, blobs, Train(epochs=2, batch_size=16), checkpoint=path)


def test_mixed_precision_trains_and_a_second_run_may_ask_for_another(small_split: sf.Split, blobs: sf.Data) -> None:
    for precision in ("bfloat16", "float32"):
        hardened = sf.harden(small_split, blobs, train=Train(epochs=1, precision=precision))
        assert all(value.dtype == torch.float32 for value in hardened.state_dict().values())


def test_hardening_a_hardened_target_adds_to_its_defenses(small_split: sf.Split, blobs: sf.Data) -> None:
    once = sf.harden(small_split, blobs, defenses=[sf.Bottleneck(channels=2)], epochs=1)
    twice = sf.harden(once, blobs, defenses=[sf.Noise(sigma=0.1)], epochs=1)
    assert [part.name for part in twice.defense] == ["bottleneck", "noise"]
    assert twice.features(torch.rand(1, 1, 8, 8)).shape == (1, 2, 8, 8)
    assert len(once.defense) == 1


def test_a_model_of_other_classes_is_refused(blobs: sf.Data) -> None:
    with pytest.raises(ModelError, match=r"logits of shape \(2, 2\).*got .*\(2, 3\)"):
        sf.harden(sf.split(small_net(classes=3), at="2"), blobs, epochs=1)


def test_pictures_of_another_size_are_refused(small_split: sf.Split) -> None:
    data = sf.load_data((torch.rand(20, 1, 9, 9), torch.arange(20) % 2))
    with pytest.raises(ModelError, match="must take pictures of 1x9x9"):
        sf.harden(small_split, data, epochs=1)


def test_schedules() -> None:
    cosine, step = Schedule(warmup=2.0, final=0.1), Schedule(name="step", warmup=0.0)
    assert [cosine.factor(epoch, 10) for epoch in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    assert [step.factor(epoch, 240) for epoch in (0, 59, 60, 120, 180, 210)] == pytest.approx([1, 1, 0.2, 0.04, 0.008, 0.0016])
    assert Schedule(name="constant", warmup=0.0).factor(7, 10) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Optimizer(learning_rate=0.0), "learning_rate must be > 0 and finite"),
        (lambda: Optimizer(momentum=-1.0), r"momentum must be in \[0, 1\)"),
        (lambda: Schedule(milestones=(60.0,)), r"fractions in \[0, 1\]"),
        (lambda: Schedule(warmup=-1.0), "warmup must be >= 0"),
        (lambda: Train(epochs=0), "epochs and batch_size must be at least 1"),
        (lambda: Train(finetune=-1), "finetune must be at least 0 epochs, got -1"),
    ],
)
def test_settings_refuse_what_makes_no_sense(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_streamed_pictures_train_to_the_bits_of_resident_ones(small_split: sf.Split, blobs: sf.Data) -> None:
    from sfumato.data.base import Reading
    from sfumato.data.collect import collect

    private = blobs.part("private")
    everything = torch.arange(len(private))
    chunks = iter([(private.read(everything).numpy(), private.labels.numpy())])
    streamed = collect(chunks, count=len(private), shape=private.shape, reading=Reading(budget=1))
    assert type(streamed) is not type(private)
    data = blobs.with_parts(private=streamed)
    settings = Train(epochs=1, batch_size=32)
    assert equal(trained(small_split, data, settings), trained(small_split, blobs, settings))


def test_a_module_that_is_not_cut_is_trained_whole(blobs: Data) -> None:
    net = sf.build_model("lenet5", classes=2, shape=(1, 8, 8))
    plain, cut = (sf.harden(one, blobs, epochs=1) for one in (net, sf.whole(net)))
    assert plain.split.at == ""
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), cut.state_dict().values(), strict=True))

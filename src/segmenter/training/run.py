"""One training run in its folder: update by update, validated and saved, until its last step.

Source: Segmenter, arXiv 2105.05633, section 4.1. Nothing random outlives a step: samples are drawn from (seed, draw)
and dropout from (seed, step), so that a continued run repeats the uninterrupted one bit for bit.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from segmenter import progress
from segmenter.config import Recipe
from segmenter.data.dataset import EndlessSampler, TrainingSamples
from segmenter.data.loader import loaded
from segmenter.data.samples import DataSet
from segmenter.errors import UserError
from segmenter.evaluation.evaluate import totals_together
from segmenter.model import processes
from segmenter.model.devices import multiplying_in, precision_of
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.training import averaging, checkpoint, environment, optim, sharding
from segmenter.training.objective import Objective
from segmenter.training.stopping import Stopped, StopsOnInterrupt
from segmenter.training.watching import UNWATCHED, Validated, Watch

LOG_EVERY = 10
CPU = torch.device("cpu")


def say(text: str) -> None:
    """Writes a line to stderr; of several processes, the first one does."""
    if PartialState().is_main_process:
        progress.say(text)


class Trained(nn.Module):
    """The model as it is called in training: with its auxiliary outputs."""

    def __init__(self, model: Segmenter):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B 3 H W) to logits and auxiliary logits."""
        return self.model.forward_auxiliary(images)


class Run:
    """One training run in its folder."""

    @processes.ends_with_the_others
    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        data: DataSet,
        model: Segmenter,
        objective: Objective,
        device: torch.device = CPU,
    ):
        self.recipe, self.settings, self.out, self.data = recipe, recipe.train, out, data
        self.objective, self.device = objective, device
        self.step, self.best = 0, -math.inf
        self.worse = 0  # validations since the best one
        self.warming = True  # the average of the weights follows quickly at first
        self.unscored = False  # the validation that is due after this step is still to be made
        self.stopping = threading.Event()  # this process was told to stop
        self.ending = False  # all processes know that one was
        self.due = dict.fromkeys(("validation", "saving"), False)  # as the minutes of the first process say
        self.last = dict.fromkeys(self.due, time.monotonic())
        self.at_once: Callable[[], AbstractContextManager[None]] = nullcontext  # what it may be told to stop within
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        self.accelerator = processes.accelerator()
        self.precision = precision_of(self.settings.precision, device)
        share = self.settings.accumulate * self.accelerator.num_processes
        if self.settings.batch % share:
            raise UserError(
                f"train.batch is {self.settings.batch}; it must be a multiple of {share} "
                "(train.accumulate times the number of processes)"
            )
        if self.accelerator.num_processes > 1:
            if device.type == "cuda":
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            elif self.settings.batch_norm == "update" and any(map(_is_batch_norm, model.modules())):
                say(
                    f"warning: on {device.type} each process measures the decoder's batch norms on its own images, so "
                    "the losses are not those of one process; --train.batch_norm frozen keeps them"
                )
        self.sharded = self.settings.shard and self.accelerator.num_processes > 1
        if not self.sharded:  # the whole may not fit
            model = model.to(device)
        self.averaged = None
        if self.settings.ema:
            self.averaged = averaging.average(model, self.settings.ema)
        self.model = model
        self.network: nn.Module = Trained(model)
        if self.sharded:
            sharding.share_out(self.network, model, device)
            if self.averaged is not None:
                sharding.share_out(self.averaged.module, self.averaged.module, device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = optim.optimizers(model, self.settings)
        if not self.sharded:
            self.network, *self.optimizers = self.accelerator.prepare(self.network, *self.optimizers)
        if self.settings.compile:
            self.network = torch.compile(self.network)

    @property
    def over(self) -> bool:
        """Whether the last update is made."""
        patience = self.settings.patience
        return self.step == self.settings.steps or (patience > 0 and self.worse >= patience)

    def _candidates(self) -> Iterator[tuple[str, Segmenter]]:
        """What may be saved, with its name: the average of the weights, if there is one, and the weights themselves.

        A run that an earlier release began ends as it would have there, with the average.

        Every process must ask for all of them.
        """
        models = {"weights": self.model}
        if self.averaged is not None:
            average = {"average": self.averaged.module}
            models = average | models if self.warming else average
        for name, model in models.items():
            yield name, (sharding.assembled(model, self.device) if self.sharded else model).eval()

    def restore(self, state: dict) -> None:
        """Takes over the state that `state` gave."""
        self.step, self.best = state["step"], state["best"]
        self.unscored = state.get("unscored", False)  # earlier releases always validated first
        self.worse = state.get("worse", 0)
        sharding.load(self.model, state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            sharding.load_optimizer(optimizer, saved)
        self.warming = state.get("warming", False)  # earlier releases' averages had one decay
        if self.averaged is not None:
            sharding.load(self.averaged, state["averaged"])
            if not self.warming:
                self.averaged.multi_avg_fn = averaging.steady(self.settings.ema)

    def state(self) -> dict:
        """All that a continuation needs: tensors and plain containers."""
        return {
            "step": self.step,
            "best": self.best,
            "unscored": self.unscored,
            "worse": self.worse,
            "warming": self.warming,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "class_weights": self.objective.class_weights,
        }

    @processes.ends_with_the_others
    def go(self, watch: Watch = UNWATCHED, command: str = "") -> float:
        """Trains to the last step and returns the best validation score.

        Raises:
            UserError: it was told to stop, or cannot go on; what it did is saved.
        """
        main = self.accelerator.is_main_process
        ended = self.over and not self.unscored  # before this session
        if main and not ended:
            here = environment.describe(self.device, self.precision, self.accelerator.num_processes)
            environment.record(self.out, {"command": command, "after_step": self.step} | here)
        log = checkpoint.Log(self.out, self.step, self.unscored) if main else None
        settings = self.settings
        bar = Progress(total=settings.steps, initial=self.step, desc="train", unit="step", disable=not main)
        since, images = time.perf_counter(), 0
        self.last = dict.fromkeys(self.due, time.monotonic())
        with StopsOnInterrupt(self.stopping, say) as told, bar, self._batches() as batches:
            # Several processes agree on when to stop, in the midst of an update.
            if self.accelerator.num_processes == 1:
                self.at_once = told.at_once
            while not self.over or self.unscored:
                try:
                    if not self.unscored:
                        with self.at_once():
                            batch = self._next(batches)
                        loss, norm = self._update(batch)
                        images += settings.batch
                        bar.update()
                        self.unscored = self.step == settings.steps or self._is_due("validation")
                        speed = images / (time.perf_counter() - since)
                        rate = optim.learning_rate(settings, self.step - 1)
                        logged = self.step % LOG_EVERY == 0 or self.step == settings.steps
                        if logged or self.step < LOG_EVERY:
                            bar.set_postfix_str(f"loss {loss:.3f}, lr {rate:.1e}, {speed:.1f} images/s")
                        if logged:
                            entry = {"loss": loss, "lr": rate, "gradient_norm": norm, "images_per_second": speed}
                            if log:
                                log.write({"step": self.step, **entry})
                            since, images = time.perf_counter(), 0
                    if self.unscored:
                        self._validate(log, watch)
                        self.unscored = False
                        since, images = time.perf_counter(), 0
                except Stopped:
                    self.ending = True
                last = self.over and not self.unscored
                if last or self.ending or self._is_due("saving"):
                    self._save_state()
                if self.ending and not last:
                    end = f"stopped after step {self.step}; go on with: segmenter resume {self.out}"
                    processes.end(UserError(end))
        if self.step < settings.steps:
            say(f"ended after step {self.step}: no better score in {self.worse} validations (train.patience)")
        if main and not ended:  # once signals have their own meaning again: everything is saved
            watch.on_end(self.out)
        return self.best

    def _is_due(self, what: str) -> bool:
        """Whether it is time for a validation or a saving, by the number of updates or by the minutes."""
        every = self.settings.validate_every if what == "validation" else self.settings.save_every
        due = self.step % every == 0 or self.due[what]
        if due:
            self.last[what], self.due[what] = time.monotonic(), False
        return due

    def _flags(self) -> list[float]:
        """What this process tells all others with an update: that it is to stop, and of the first, what is due."""
        minutes = {"validation": self.settings.validate_minutes, "saving": self.settings.save_minutes}
        gone = {what: (time.monotonic() - self.last[what]) / 60 for what in minutes}
        main = self.accelerator.is_main_process
        due = [main and limit > 0 and gone[what] >= limit for what, limit in minutes.items()]
        return [float(self.stopping.is_set()), *map(float, due)]

    def _next(self, batches: Iterator[dict]) -> dict:
        """The next batch; where an image cannot be read, in any process, the state is saved first."""
        error = None
        try:
            batch = next(batches)
        except UserError as unreadable:
            error = unreadable
        if processes.anywhere(error is not None):
            self._save_state()
            processes.end(error)
        return batch

    def _batches(self) -> AbstractContextManager[Iterator[dict]]:
        """This process's share of every remaining batch."""
        settings, samples = self.settings, self.data.splits["train"]
        size = settings.batch // self.accelerator.num_processes
        rank = self.accelerator.process_index
        stream = iter(EndlessSampler(len(samples), settings.seed, start=self.step * settings.batch))
        keys = (
            [next(stream) for _ in range(settings.batch)][rank * size : (rank + 1) * size]
            for _ in range(self.step, settings.steps)
        )
        samples = TrainingSamples(samples, self.recipe.augment, settings.seed, self.recipe.task)
        return loaded(samples, settings.workers, keys, pin=self.device.type == "cuda")

    def _update(self, batch: dict) -> tuple[float, float]:
        """One optimiser update on a batch; returns loss and gradient norm."""
        settings, objective, device = self.settings, self.objective, self.device
        torch.manual_seed(hash((settings.seed, self.step, self.accelerator.process_index)))
        self._train_mode()
        for optimizer in self.optimizers:
            optim.set_learning_rate(optimizer, optim.learning_rate(settings, self.step))
        names = ("image", "target", "content")
        images, targets, content = (batch[name].to(device, non_blocking=device.type == "cuda") for name in names)
        # The mean is over the valid pixels of the whole batch, however it is split.
        divisor = self.accelerator.reduce(objective.weight(targets), "sum").clamp(min=1e-12)
        total = torch.zeros((), device=device)
        parts = zip(*(tensor.chunk(settings.accumulate) for tensor in (images, targets, content)), strict=True)
        for image_part, target_part, content_part in parts:
            with multiplying_in(self.precision, device):
                logits = self.network(self.model.normalize(image_part, content_part))
            loss = objective.loss(self.model.outputs(logits, *image_part.shape[-2:]), target_part)
            # Gradients are averaged over the processes, the sum is wanted.
            self.accelerator.backward(loss * self.accelerator.num_processes / divisor)
            total += loss.detach() / divisor
        norm = optim.gradient_norm(self.parameters, settings.clip)
        flags = torch.tensor(self._flags(), device=device)
        total, *flags = self.accelerator.reduce(torch.cat([total[None], flags]), "sum")
        self.ending, *due = map(bool, flags)
        self.due = dict(zip(self.due, due, strict=True))
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._refuse_update(float(total), float(norm), batch["name"])
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return float(total), float(norm)

    def _refuse_update(self, loss: float, norm: float, names: list[str]) -> None:
        """Keeps the state before the update that would have spoilt the weights, and says what to do.

        Where the update before has overflowed the weights already, the state that was saved last is kept instead.
        """
        kept = "nothing was saved before it"
        parts = map(sharding.local, self.model.parameters())
        if not processes.anywhere(not all(torch.isfinite(part).all() for part in parts)):
            self._save_state()
            kept = f"the state after step {self.step} is in {self.out / checkpoint.STATE}"
        elif (self.out / checkpoint.STATE).exists():
            kept = f"the weights were too large before it; an older state is in {self.out / checkpoint.STATE}"
        told = (
            f"step {self.step + 1}: loss {loss}, gradient norm {norm}. The update was not made; {kept}. "
            f"The batch: {', '.join(names)}. "
            f"Try a lower train.lr (now {self.settings.lr}), train.warmup, train.clip 1.0, or train.precision fp32"
        )
        processes.end(UserError(told) if self.accelerator.is_main_process else None)

    def _save_state(self) -> None:
        main = self.accelerator.is_main_process
        state = self.state()
        if self.sharded:
            state = sharding.whole(state, keep=main)
        if main:
            checkpoint.save_state(self.out, state)

    def _validate(self, log: checkpoint.Log | None, watch: Watch) -> None:
        """Scores the model on val, saves it as last/, and at the top of the folder if it is the best so far.

        Where there is an average of the weights, the better of the two is the model.

        Raises:
            Stopped: it was told to stop; nothing was logged or saved.
        """
        metric, best = self.objective.metric, None
        with self.at_once():
            for name, model in self._candidates():
                found = name, model, self._scores(model)
                if best is None or found[2][metric] > best[2][metric]:
                    best, other = found, best
                else:
                    other = found
        name, judged, scores = best
        self.worse = 0 if scores[metric] > self.best else self.worse + 1
        better, self.best = not self.worse, max(self.best, scores[metric])
        if log is None:
            return
        entry = {"step": self.step} | {f"val_{key}": value for key, value in scores.items()}
        shown = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in scores.items())
        if other is not None:
            entry |= {"model": name, f"{other[0]}_{metric}": other[2][metric]}
            shown += f" ({name}; {other[0]} {other[2][metric]:.4f})"
        log.write(entry)
        say(f"step {self.step}: val {shown}")
        judged.save(self.out / "last")
        if better:
            judged.save(self.out)
        watch.on_validation(Validated(self.out, judged, self.data, self.step, self.settings.steps))

    def _scores(self, model: Segmenter) -> dict[str, float]:
        """The scores of a model on val."""
        counts = totals_together(model, self.data.splits["val"], workers=self.settings.workers, title="validate")
        if isinstance(counts, np.ndarray):
            counts = torch.from_numpy(counts.astype(np.float32))  # some devices have no float64
        return self.objective.scores(counts)

    def _train_mode(self) -> None:
        self.network.train()
        if self.settings.batch_norm == "frozen":
            for module in self.network.modules():
                if _is_batch_norm(module):
                    module.eval()


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)

"""One bar for a configuration on a terminal, one line per epoch elsewhere."""

import threading

import tqdm


class Stopped(RuntimeError):
    """Another run of the same configuration failed, or the user pressed Ctrl-C."""


class Progress:
    """Counts steps of several runs that train at the same time."""

    def __init__(self, title: str, steps: int, steps_done: int = 0):
        self.title = title
        self.stopping = threading.Event()
        self.bar = tqdm.tqdm(
            total=steps, initial=steps_done, desc=title, unit="step", mininterval=0.5, disable=None, smoothing=0.01
        )

    def step(self) -> None:
        """Raises Stopped in runs that should not go on."""
        if self.stopping.is_set():
            raise Stopped(self.title)
        self.bar.update()

    def report_epoch(self, row: dict, epochs: int) -> None:
        text = f"seed {row['seed']} epoch {row['epoch']}/{epochs}"
        values = {name: f"{row[name]:.4f}" for name in ("train_loss", "val_loss", "val_accuracy", "grad_norm")}
        if self.bar.disable:
            print(f"{self.title} {text} " + " ".join(f"{k} {v}" for k, v in values.items()), flush=True)
        else:
            self.bar.set_postfix_str(f"{text}, loss {values['val_loss']}, accuracy {values['val_accuracy']}")

    def stop(self) -> None:
        self.stopping.set()
        self.bar.close()

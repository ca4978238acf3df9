"""The command `segmenter`: verbs to functions. torch is imported only when a verb starts to work."""

import os
import shlex
import signal
import sys
import threading
import traceback

import tyro

from segmenter import streams
from segmenter.cli.calibrating import calibrate
from segmenter.cli.data import check, convert_data, prepare
from segmenter.cli.explaining import explain
from segmenter.cli.published import convert, models
from segmenter.cli.runs import report
from segmenter.cli.training import demo, recipe_named, resume_with, train_with
from segmenter.cli.using import benchmark, evaluate, predict
from segmenter.errors import Said, UserError, WrongUse, cleaned

VERBS = {
    "train": train_with,
    "check": check,
    "resume": resume_with,
    "evaluate": evaluate,
    "predict": predict,
    "calibrate": calibrate,
    "explain": explain,
    "report": report,
    "benchmark": benchmark,
    "data": convert_data,
    "prepare": prepare,
    "demo": demo,
    "convert": convert,
    "models": models,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; 0 done, 1 failed, 2 wrong use."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers send it: as Ctrl-C
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it as it is imported
    debug = "--debug" in arguments
    try:
        with streams.usable() as out:
            status = _run([argument for argument in arguments if argument != "--debug"], debug)
            return streams.finished(out, status)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str], debug: bool) -> int:
    command = shlex.join(["segmenter", *arguments])
    try:
        # In their places, the first ones.
        verbs = VERBS | {"train": train_with(recipe_named(arguments), command), "resume": resume_with(command)}
        tyro.extras.subcommand_cli_from_dict(
            verbs,
            args=arguments,
            prog="segmenter",
            description="Semantic segmentation with plain vision transformers. --debug shows tracebacks.",
        )
    except SystemExit as end:  # tyro's, of --help and of wrong use
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except UserError as error:
        if debug:
            traceback.print_exc()
        if not isinstance(error, Said):
            streams.complain(error)
        return 2 if isinstance(error, WrongUse) else 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename is not None else ""
        streams.complain(cleaned(f"{where}{error.strerror or error}"))
        return 1
    except KeyboardInterrupt:
        streams.complain("interrupted")
        return 1
    return 0

"""The command `segmenter`: verbs to functions. torch is imported only when a verb starts to work."""

import os
import signal
import sys
import threading
import traceback

import tyro

from segmenter import streams
from segmenter.cli.data import check, convert_data, prepare
from segmenter.cli.published import convert, models
from segmenter.cli.training import demo, recipe_named, resume, train_with
from segmenter.cli.using import benchmark, evaluate, predict
from segmenter.errors import Said, UserError, WrongUse, cleaned


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
    try:
        verbs = {
            "train": train_with(recipe_named(arguments)),
            "check": check,
            "resume": resume,
            "evaluate": evaluate,
            "predict": predict,
            "benchmark": benchmark,
            "data": convert_data,
            "prepare": prepare,
            "demo": demo,
            "convert": convert,
            "models": models,
        }
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

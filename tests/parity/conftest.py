"""After the parity tests: what was not compared, and with SEGMENTER_GOLDENS set how far off each case was."""

import os

import recorded


def pytest_terminal_summary(terminalreporter) -> None:
    if not recorded.measured:
        return
    terminalreporter.section(f"recorded cases in {recorded.ROOT}")
    if os.environ.get("SEGMENTER_GOLDENS"):
        for case, quantity, error, limit in sorted(recorded.measured):
            terminalreporter.line(f"{case:44} {quantity:60} {error:9.2e}  (at most {limit:.0e})")
    for folder in recorded.unknown():
        terminalreporter.line(f"{recorded.name(folder):44} not compared: a kind of case that no parity test knows")

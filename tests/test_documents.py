"""Proves that YAML and JSON give plain values or one reason, with bounded work: nothing in them is taken in silence."""

import os

import pytest

from segmenter.documents import DEEPEST, LARGEST, BadDocument, parsed_json, read_json, read_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)


@pytest.fixture
def read(tmp_path):
    """What a text gives as YAML."""

    def of(text: str | bytes, **options) -> object:
        path = tmp_path / "x.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path, **options)

    return of


def test_plain_values(read):
    text = "a: 1\nb: [x, 2.5, true, null, 2001-01-01]\nc: {d: &e {f: 0x10}, g: *e, h: {<<: *e, i: .inf}}\n"
    shared = {"f": 16}
    assert read(text) == {
        "a": 1,
        "b": ["x", 2.5, True, None, "2001-01-01"],
        "c": {"d": shared, "g": shared, "h": {"f": 16, "i": float("inf")}},
    }
    assert read("") is None
    assert read("\ufeffa: 1") == {"a": 1}
    assert read("a: !!python/tuple [1, [2]]", tuples=True) == {"a": (1, [2])}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key a stands there twice"),
        ("x: {a: &b {c: 1}, d: {<<: *b, e: 1, e: 2}}", "line 1: the key e stands there twice"),
        ("1: a\n0x1: b", "line 2: the key 1 stands there twice"),
        (LAUGHS, "line 6: it holds more than 80000 values, aliases written out"),
        ("a: &a [*a]", "line 1: the alias *a stands inside of what it stands for"),
        ("- &a x\n- &a y\n- *b", "line 2: "),
        ("[" * 5000, "line 1: "),
        ("{a: " * (DEEPEST + 1), f"line 1: it has more than {DEEPEST} levels"),
        ("a: !!int xx", "line 1: 'xx' is no number"),
        ("a: !!float x", "line 1: 'x' is no number"),
        ("a: !!bool x", "line 1: 'x' is neither true nor false"),
        ("a: 0b_", "line 1: '0b_' is no number"),
        ("a: 99999999999999999999", "line 1: the number 99999999999999999999 has more than 64 bits"),
        ("a: " + "9" * 5000, "is no number"),
        ("a: " + ":".join(["59"] * 1000), "is no number"),
        ("a: !!timestamp 2001-99-99", "could not determine a constructor"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: !!python/tuple [1]", "could not determine a constructor"),
        ("a: !!binary x", "could not determine a constructor"),
        ("? [a]\n: b", "line 1: a key is a list or a mapping"),
        ("a: [", "while parsing a flow node"),
        ("a: \x01", "control characters are not allowed"),
        (b"\xff\xfe\xfa", "byte 0 is not UTF-8"),
        ("--- a\n--- b", "another document"),
        ("a" * (LARGEST + 1), "it has more than 4 MB"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_yaml_is_refused_and_why(read, text, reason):
    with pytest.raises(BadDocument) as caught:
        read(text)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1,\n "b": {"c": 2},\n "a": 3}', "the key 'a' stands there twice (lines 1, 3)"),
        ("[" * 100_000, "it has more than 64 levels"),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "it has more than 64 levels"),
        ("99999999999999999999", "has more than 64 bits"),
        ("9" * 5000, "has more than 64 bits"),
        ('{"a": 1,\n"b" 2}', "line 2: Expecting ':'"),
        ("", "line 1: Expecting value"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_json_is_refused_and_why(text, reason):
    with pytest.raises(BadDocument) as caught:
        parsed_json(text)
    assert reason in str(caught.value)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        for read in (read_yaml, read_json):
            with pytest.raises(BadDocument, match="it is no regular file"):
                read(tmp_path / path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")

"""YAML from disk: safe, strict, one line with a place for each fault."""

import pytest

from evalkit.errors import ConfigError
from evalkit.yamlfile import load_yaml


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\na: 2\n", r":2:1: not valid YAML: key 'a' is given twice"),
        ("a: {b: 1, b: 2}", r"key 'b' is given twice"),
        ("a: [1\nb: 2", "not valid YAML"),
        ("- 1", "expected a mapping at the top, found list"),
        ("", "expected a mapping at the top, found NoneType"),
        ("a: !!python/object/apply:os.system [touch pwned]", "not valid YAML"),
        ("? [1, 2]\n: 3", "a key must be a scalar"),
        ("a: " + "[" * 5000, "nested too deep"),
    ],
)
def test_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_yaml(path)
    assert not (tmp_path / "pwned").exists()


def test_not_utf8(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "x.yaml")


def test_merge_keys_work(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert load_yaml(tmp_path / "x.yaml")["b"] == {"x": 1, "y": 3}

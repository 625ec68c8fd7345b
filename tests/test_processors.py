"""The runner of the suite under limits: which settings there are, and how a report becomes a row."""

from __future__ import annotations

import pytest

from tests import processors

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="one"/><testcase classname="a" name="two"><failure/></testcase>
<testcase classname="a" name="three"><skipped/></testcase>
<testcase classname="b" name="four"><error/></testcase>
</testsuite></testsuites>"""


def test_every_limit_is_tried_with_one_thread_and_two():
    assert len(processors.SETTINGS) == 2 * 5
    for variable, values in (
        ("ONEDNN_MAX_CPU_ISA", {None, "AVX2", "AVX512_CORE_BF16"}),
        ("ATEN_CPU_CAPABILITY", {None, "avx2"}),
    ):
        for threads in ("1", "2"):
            tried = [e.get(variable) for e in processors.SETTINGS.values() if e["OMP_NUM_THREADS"] == threads]
            assert set(tried) == values


def test_reports_become_rows_under_the_name_of_the_processor(tmp_path, monkeypatch, capsys):
    environments = {}

    def pretend(command, *, cwd, env, check):
        path = next(word.partition("=")[2] for word in command if word.startswith("--junit-xml="))
        environments[len(environments)] = (command[-1], env)
        (tmp_path / "report").write_text(REPORT)
        (tmp_path / "report").rename(path)
        return processors.subprocess.CompletedProcess(command, len(environments) - 1)

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    monkeypatch.setattr(processors.subprocess, "run", pretend)
    out = tmp_path / "table.md"
    words = ["default-2", "onednn-avx2-1", "--quiet", "--out", str(out), "--", "tests/nn"]
    assert processors.main(words) == 1  # the second one said so
    assert "| default-2 | 1 | 2 | 1 | 0 s |" in out.read_text()
    assert "onednn-avx2-1: b::four" in out.read_text()
    assert processors.cpu_name() in out.read_text()
    first, second = environments.values()
    assert first[0] == second[0] == "tests/nn"
    assert "ONEDNN_MAX_CPU_ISA" not in first[1]
    assert first[1]["OMP_NUM_THREADS"] == "2"
    assert second[1]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert processors.main(["--list"]) == 0
    with pytest.raises(SystemExit):
        processors.main(["avx3"])

"""The command that prints parameters and multiply-adds."""

from __future__ import annotations

import pytest

from tools import complexity


def test_table_of_the_published_network(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["complexity"])
    complexity.main()
    text = capsys.readouterr().out
    assert "decoder of 512 channels: 91,587,072 parameters, 71.77 G, 83.13 G" in text
    assert "decoder of 80 channels: 86,290,320 parameters" in text, "close to what the dual-branch paper prints"
    saved = float(text.split("saved: ")[1].split("%")[0])
    assert 27 <= saved < 40


def test_compact_network_has_no_count_of_gradients(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["complexity", "--encoder", "lite0_vit", "--size", "128", "--widths", "128"])
    complexity.main()
    text = capsys.readouterr().out
    assert "lite0_vit, decoder of 128 channels" in text and "efficientnet_lite2 with modulation" in text
    assert "saved" not in text

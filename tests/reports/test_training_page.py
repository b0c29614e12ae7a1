"""The page of a training: its charts, their figures, and nothing that was not logged."""

from __future__ import annotations

import pytest

from wsd_local.reports.training_page import training_page

LOG = [
    {"step": 1, "loss": 0.6931, "margin": 0.0, "accuracy": 0.0},
    {"step": 2, "loss": 0.5, "margin": 0.25, "accuracy": 0.75},
    {"step": 3, "loss": 0.4},
    {"step": 3, "validation_loss": 0.61, "validation_margin": 0.125, "validation_accuracy": 0.5},
]


def test_a_page_has_a_chart_for_each_value_with_its_figures() -> None:
    pytest.importorskip("matplotlib", reason="expected: matplotlib is not installed (pip install '.[report]')")
    made = training_page("<mine>", ["DPO, 2 steps"], LOG)
    assert "Training of &lt;mine&gt;" in made and "DPO, 2 steps" in made
    for title in ("Loss", "Reward margin", "Accuracy"):
        assert f"<h2>{title}</h2>" in made
    assert made.count("<figure") == 3 and "pairs set aside" in made
    for value in ("0.6931", "0.25", "0.61", "0.125"):
        assert f">{value}<" in made


def test_values_that_were_not_logged_have_no_chart() -> None:
    pytest.importorskip("matplotlib", reason="expected: matplotlib is not installed (pip install '.[report]')")
    made = training_page("mine", [], [{"step": 1, "loss": 2.0}])
    assert made.count("<figure") == 1 and "Reward margin" not in made
    assert "Nothing was logged" in training_page("mine", [], [])

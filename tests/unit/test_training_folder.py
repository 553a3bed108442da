"""What training says of labels by their place in the Cell Ontology."""

from __future__ import annotations

import pytest

from cellscribe.model.ontology import build_ontology
from cellscribe.training.folder import tell_related


def said(cl_ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    tell_related(cl_ids, build_ontology([cl_id for cl_id in cl_ids.values() if cl_id]))
    return capsys.readouterr().err


def test_labels_of_one_id_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = said({"B cells": "CL:0000236", "x": "", "y": "", "B lymphocyte": "CL:0000236"}, capsys)
    assert "warning: 'B cells', 'B lymphocyte' are one type by their ids, CL:0000236 (B cell)" in text
    assert text.count("\n") == 1


def test_a_label_above_others_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = said({"T": "CL:0000084", "CD4 T": "CL:0000624", "CD8 T": "CL:0000625", "B": "CL:0000236"}, capsys)
    assert text.count("\n") == 1 and "warning" not in text
    assert "'T' lies above 'CD4 T', 'CD8 T' in the Cell Ontology" in text

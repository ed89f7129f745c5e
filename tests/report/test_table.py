"""The tables: known numbers in, the same numbers out, on pages and as text."""

from __future__ import annotations

from types import SimpleNamespace

from bcgan_tf.report.findings import generated_table
from bcgan_tf.report.table import (
    Cell,
    Table,
    TableRow,
    accuracy,
    attack_table,
    clean_table,
    eps_text,
    radii_table,
    rows_table,
)


def cells(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row.cells] for row in table.rows]


def test_numbers_are_shown_as_they_were_meant() -> None:
    assert [eps_text(e) for e in (0.3, 0.05, 0.025, 0.1 + 0.2, 2 / 255, 1 / 3, 8 / 255)] == [
        "0.3", "0.05", "0.025", "0.3", "2/255", "85/255", "8/255",
    ]  # fmt: skip
    found = {"clean_accuracy": 0.975, "clean_interval95": [0.971, 0.979]}
    assert accuracy(found, "clean_") == Cell("97.5 %", "(97.1 to 97.9)")
    assert str(accuracy({"accuracy": 0.7}, n=1000)) == "70.0 % n = 1,000"
    assert str(accuracy({})) == "not measured"


def test_an_evaluation_has_a_row_an_attack(make: SimpleNamespace) -> None:
    clean = "98.0 % (96.4 to 98.9)"
    table = attack_table(make.evaluated())
    assert cells(table) == [
        ["no attack", "", "", clean, clean, "", ""],
        # 490 were right, 40 of them broken: 450 of 500.
        ["APGD-CE", "490 7 again in float32", "40", "90.0 % (87.0 to 92.0)",
         "90.0 % (87.1 to 92.3)", "1,101 / 101", "12.3 s"],
        ["Square", "450", "10", "survivors only", "88.0 % (84.9 to 90.6)", "-", "-"],
        ["worst case", "", "", "", "88.0 % (84.9 to 90.6)", "", ""],
    ]  # fmt: skip
    assert [row.strong for row in table.rows] == [False, False, False, True]


def test_text_is_aligned() -> None:
    table = Table(("", "n"), (TableRow.of("a", Cell("7", "(of 9)")), TableRow.of("long", 10)))
    assert str(table).splitlines() == ["             n", "a     7 (of 9)", "long        10"]
    assert str(Table(())) == ""


def test_radii_have_a_row_each_and_a_column_a_model(make: SimpleNamespace) -> None:
    radii = {"original": make.radii(0.6, 0.2, l2=1.4), "hardened": make.radii(0.9, l2=None)}
    table = radii_table(radii)
    assert table.head == ("", "original", "hardened")
    assert cells(table) == [
        ["eps 0.1", "60.0 % (50.0 to 70.0)", "90.0 % (80.0 to 100.0)"],
        ["eps 0.2", "20.0 % (10.0 to 30.0)", "-"],
        ["mean L2 distance of the adversarial examples found", "1.400 n = 90", "none found"],
    ]
    del radii["original"]["mean_distance"], radii["hardened"]["mean_distance"]
    assert len(radii_table(radii).rows) == 2


def test_models_that_were_not_attacked_have_their_clean_accuracy(make: SimpleNamespace) -> None:
    plain = {"clean_accuracy": 0.9, "clean_interval95": [0.8, 0.95], "n": 1000}
    table = clean_table({"a": plain, "b": make.entry(make.evaluated())})
    assert table.head == ("", "a")
    assert cells(table) == [["clean accuracy", "90.0 % (80.0 to 95.0), n = 1,000"]]
    assert not clean_table({"b": make.entry(make.evaluated())}).rows


def test_dicts_of_numbers_are_rows() -> None:
    table = rows_table([{"beta": 0.0, "found_at": 2.1234567}, {"beta": 5, "right": True}])
    assert table.head == ("beta", "found at", "right")
    assert cells(table) == [["0", "2.123", "-"], ["5", "-", "yes"]]


def test_the_generated_set_is_explained() -> None:
    rows = cells(
        generated_table({"n": 2000, "oracle_accuracy": 0.834, "entropy": 1.3, "classes": 10})
    )
    assert [row[:2] for row in rows] == [
        ["samples", "2,000"],
        ["oracle accuracy on c", "83.4 %"],
        ["mean entropy", "1.300"],
    ]
    assert "at most 2.30" in rows[2][2]

import sys

import msgspec
import pytest

from console.checks.budgets import limits_of
from streams.config.parse import parse
from unship.budgets import table
from unship.budgets.table import BUDGETS, Budget
from unship.rejections import RejectCode


def test_every_row_of_the_module_is_in_the_table_once():
    rows = [each for each in vars(table).values() if isinstance(each, Budget)]
    assert sorted(each.what for each in rows) == sorted(each.what for each in BUDGETS)
    assert len({each.what for each in BUDGETS}) == len(BUDGETS)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda each: each.what)
def test_each_row_states_its_limit_what_is_beyond_it_and_how_places_come_back(budget):
    assert 0 < budget.limit < sys.maxsize
    assert all((budget.unit, budget.back, budget.why))
    assert budget.beyond in RejectCode.__members__ or not budget.beyond.isupper()
    assert "bytes" not in budget.unit or budget.bytes == budget.limit


def test_limits_that_the_configuration_sets_are_those_in_force():
    config = parse("limits: {models: 7, versions: 8, replicas: 9, window: 2GiB, recording: 32MiB}")
    found = {each.set_by: each.limit for each in limits_of(config) if each.set_by}
    assert found == {
        "limits.models": 7,
        "limits.versions": 8,
        "limits.replicas": 9,
        "limits.window": 2**31,
        "limits.recording": 2**25,
    }


def test_size_of_a_limit_follows_the_value_in_force():
    half, whole = (
        next(each for each in limits_of(parse(text)) if each.set_by == "limits.replicas")
        for text in ("limits: {replicas: 500}", "")
    )
    assert (half.limit, half.bytes) == (500, (whole.bytes or 0) // 2)


def test_limits_of_places_are_part_of_what_decisions_depend_on_and_limits_of_memory_are_not():
    same, other = parse("limits: {window: 2GiB, recording: 32MiB}"), parse("limits: {models: 7}")
    assert parse("").digest() == same.digest() != other.digest()
    assert msgspec.convert(other.recorded(), type(other)).places == other.places

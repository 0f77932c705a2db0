"""Which ways of K1 are run again with the larger vocabulary."""

import head


def test_ways_without_a_time_are_not_compared():
    found = {"eager": {"peak_mb": 9.0}, "gopd": {"ms": 3.0}, "a": {"ms": 5.0}, "b": {"ms": 4.0}, "c": {"ms": 6.0}}
    assert head.by_speed(found) == ["b", "a", "c"]
    assert head.nearest(found) == ["b", "a", "gopd"]

"""Harm done on purpose, as often as wanted: kills, races, power cuts, flipped bits and garbage.

A module for each kind. `python -m attninf_assets_tests.torture.<kind> --count 1000` does it for as long as that takes;
the test beside it does a little of the same. Every attempt follows from the seed and its number, so a failure can be
had again.
"""

"""Classify frozen features by what labelled examples teach: a linear probe, weighted neighbours, a few shots.

Everything here takes features and integers and knows neither models nor files. Results do not depend on the device or
the number of threads beyond the tolerance of the solver (linear probe), or at all (neighbours).
"""

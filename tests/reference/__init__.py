"""Plain, slow float64 transcriptions of the losses' published formulas, for the tests to compare with.

Written from the formulas alone: loops over anchors and candidates, NumPy scalars, gradients by hand, no autograd, no
log space. ``float64`` holds ``exp`` of anything up to 709, so at ``|s_ij - s_ii| / tau <= 400`` (cosines at 0.005, the
smallest temperature in use) the odds need no guard and the formulas can stand as they are printed.
"""

from tests.reference.state import ReferenceState, ReferenceStep
from tests.reference.step import compute_step

__all__ = ["ReferenceState", "ReferenceStep", "compute_step"]

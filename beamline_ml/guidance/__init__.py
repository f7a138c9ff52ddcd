"""What to measure next, for how long, and why: from the density of states of a sample and from its running scan.

Pure: records and arrays in, records and arrays out. What is not known is not assumed; the plan says what is missing.
"""

from __future__ import annotations

from beamline_ml.guidance.conditions import Conditions
from beamline_ml.guidance.from_dos import plan_from_dos

__all__ = ["Conditions", "plan_from_dos"]

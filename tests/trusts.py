"""What `nas trust` left in a run folder."""

from __future__ import annotations

import json

N = 4  # subnets trained alone in the fixture `trusted`


def report_of(run):
    return json.loads((run / "trust.json").read_text())

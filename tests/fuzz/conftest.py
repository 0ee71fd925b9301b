from __future__ import annotations

import sys
from pathlib import Path

# Test modules are imported on their own; this makes those that they share importable by their names.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "node")]

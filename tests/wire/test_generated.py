from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*.py*"))
        if path.suffix != ".pyc"
    }


def test_the_generated_code_is_what_the_contract_gives(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "gen_proto"), run_name="gen_proto")
    script["generate"](tmp_path)
    generated = texts(tmp_path)
    assert len(generated) > len(script["PROTOS"])
    assert texts(script["OUT"]) == generated, "run scripts/gen_proto"

"""Write what docs/ and README take from the code: the table of methods, and their number."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE_PAGE = ROOT / "docs" / "methods.md"
COUNTING_PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{n}.md" for n in ("README", "zh"))]
COMMAND = [sys.executable, "-m", "camcli", "methods", "--format", "markdown"]


def rewrite(page: Path, pattern: str, text: str) -> None:
    """Replace every match of a pattern in a page."""
    before = page.read_text(encoding="utf-8")
    page.write_text(re.sub(pattern, lambda _: text, before, flags=re.DOTALL), encoding="utf-8")


table = subprocess.run(COMMAND, check=True, capture_output=True, encoding="utf-8").stdout
count = str(len(table.splitlines()) - 2)
rewrite(TABLE_PAGE, r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", table)
for page in [TABLE_PAGE, *COUNTING_PAGES]:
    rewrite(page, r"\b\d+(?= (?:methods|种方法))", count)

"""Write the generated table of methods into docs/methods.md."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("methods.md")
COMMAND = [sys.executable, "-m", "camcli", "methods", "--format", "markdown"]

table = subprocess.run(COMMAND, check=True, capture_output=True, encoding="utf-8").stdout
text = PAGE.read_text(encoding="utf-8")
marked = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
PAGE.write_text(marked.sub(lambda _: table, text), encoding="utf-8")

"""The description that a package index shows: README.md without its picture and with its links into the repository as
plain text.

Everything else about the package stands in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import setup

text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.M)
text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)
setup(long_description=re.sub(r"<!--.*?-->\n", "", text), long_description_content_type="text/markdown")

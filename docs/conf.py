"""How the documentation is built: MyST pages, furo, every warning an error."""

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import spawny

project = "spawny"
copyright = "2026, the spawny authors"
version = release = spawny.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
default_role = "literal"  # docstrings are written with single backticks
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"spawny {release}"

# Headings become link targets, so that a link to a section that was renamed
# fails the build.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

# Every cross reference into spawny must resolve. Names of other packages
# cannot: their inventories would have to come over the network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!spawny\.).*")]

# The build must not depend on hosts that are not ours; links inside the
# documentation are checked.
linkcheck_ignore = [r"https?://"]


def setup(app: Sphinx) -> None:
    # GitHub draws such a block. Here it is shown as the text that it is.
    app.add_lexer("mermaid", TextLexer)

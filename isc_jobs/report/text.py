"""Text of others within the page's HTML."""

import html

from isc_jobs.spec.plain import plain


def escape(text: str) -> str:
    """The text as text, between tags or in a quoted attribute; control characters and turns of direction shown."""
    return html.escape(plain(text))

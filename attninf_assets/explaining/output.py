"""An explanation as a page for a browser, self-contained, and as JSON."""

import json
from dataclasses import asdict

from jinja2 import Environment, PackageLoader, StrictUndefined

from attninf_assets.explaining.view import LEVELS, STRONG, View

__all__ = ["to_json", "to_page"]

_MOST_LISTED = 25
_TITLED = 1  # from this colour on a token says its figures when it is pointed at

_PAGES = Environment(
    loader=PackageLoader("attninf_assets.explaining", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def to_page(view: View) -> str:
    """A page of HTML that needs nothing else: no script, no address, nothing that is asked for.

    Whatever stands in the document is text in it, and never markup.
    """
    return _PAGES.get_template("page.html.jinja").render(
        view=view, listed=view.raised[:_MOST_LISTED], levels=LEVELS, strong=STRONG, titled=_TITLED
    )


def to_json(view: View) -> str:
    """The view as JSON, an object of its fields."""
    return json.dumps(asdict(view), ensure_ascii=False, indent=1)

"""Charts inside the page: svg text that cannot clash with another chart's."""

import re

_HEAD = re.compile(r"^.*?<svg\b[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_NAME = re.compile(r"\bid=\"|xlink:href=\"#|url\(#")


def inline_svg(text: str, prefix: str, label: str) -> str:
    """An svg file's text for the middle of a page, as wide as there is room for.

    Args:
        text: the file's text, as matplotlib writes it.
        prefix: put before every id, so that those of several charts differ.
        label: what the chart shows, for those who do not see it.

    Returns:
        The element, or nothing where the text is no such file.
    """
    found = _HEAD.match(text)
    if found is None:
        return ""
    width = found[1].split()[2]
    body = _METADATA.sub("", text[found.end() :])
    body = _NAME.sub(lambda name: f"{name[0]}{prefix}", body)
    return (
        f'<svg viewBox="{found[1]}" style="max-width:{width}pt" role="img" '
        f'aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )

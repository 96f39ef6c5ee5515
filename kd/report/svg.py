"""Charts inside the page: svg text that cannot clash with another chart's."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

_SVG = "http://www.w3.org/2000/svg"
_DESCRIPTIONS = (
    "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}",
    "{http://creativecommons.org/ns#}",
    "{http://purl.org/dc/elements/1.1/}",
)
_HEAD = re.compile(r"^.*?<svg\b[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_NAME = re.compile(r"\bid=\"|xlink:href=\"#|url\(#")
# All that matplotlib draws with. Scripts, foreign content, animations and links are not among it.
_ELEMENTS = {
    *("svg", "g", "defs", "style", "path", "use", "clipPath", "rect", "text", "tspan", "image"),
    *("circle", "ellipse", "line", "polygon", "polyline", "linearGradient", "stop", "pattern"),
    *("title", "metadata", "symbol", "mask"),
}
_INSIDE = ("#", "data:image/png;base64,")
# XML passes over these; a page may see them end earlier, and what is in them begin.
_HIDES = re.compile(r"<\?|<!\[CDATA\[|<!--(?:(?!-->).)*?[<>]", re.DOTALL)
_DECLARATION = re.compile(r"^\s*<\?xml\b[^<>]*\?>")
_LOADS = re.compile(r"url\(\s*['\"]?(?!#)|@import|javascript:|expression\(", re.IGNORECASE)


def unsafe_part(text: str) -> str | None:
    """What in an svg file could run, or load something from elsewhere; None where nothing can.

    The file is read as XML, so that no way of writing a tag can hide one, but where XML and HTML
    see different ends: such parts are refused. Pictures may lie in the file itself, as
    `data:image/png`.
    """
    if "<!ENTITY" in text:
        return "an entity"
    if _HIDES.search(_DECLARATION.sub("", text)):
        return "a comment, an instruction or raw text that could hide a tag"
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return f"no svg ({error})"
    found = (unsafe for element in root.iter() for unsafe in _unsafe(element))
    return next(found, None)


def _unsafe(element: ElementTree.Element) -> Iterator[str]:
    tag = _local(element.tag)
    if tag not in _ELEMENTS and not _is_description(element.tag):
        yield f"an element <{tag}>"
    if tag == "style" and _LOADS.search(element.text or ""):
        yield "a style that loads something"
    for key, value in element.attrib.items():
        name = _local(key)
        if name.lower().startswith("on"):
            yield f"an attribute {name}"
        elif name in ("href", "src") and not value.startswith(_INSIDE):
            yield f"a link to {value}"
        elif _LOADS.search(value):
            yield f"an attribute {name} that loads something"


def _local(name: str) -> str:
    """A tag's or an attribute's name without its namespace."""
    return name.rpartition("}")[2]


def _is_description(tag: str) -> bool:
    """Whether it is part of the metadata, which do not reach the page."""
    return not tag.startswith(f"{{{_SVG}}}") and tag.startswith(_DESCRIPTIONS)


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

"""Names of the experiment file as words."""

_COLUMNS = {"teacher_score": "teacher's score", "native": "not distilled"}


def readable(name: str) -> str:
    """A column's, method's or dataset's name as words."""
    return _COLUMNS.get(name, name.replace("_", " "))

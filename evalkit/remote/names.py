"""Which objects of a bucket may become files: anyone who can write there chooses their names."""

_LONGEST_PART = 200  # bytes; file systems end at 255, and a temporary name is longer than the file's
_LONGEST = 1024
LEASE_FILE = "lease.json"


def is_plain(name: str) -> bool:
    """Whether `a/b/c` stays inside of a folder and is shown as it is: no `..`, nothing hidden or unprintable."""
    try:
        if len(name.encode("utf-8")) > _LONGEST:
            return False
        return all(_is_plain_part(part) for part in name.split("/"))
    except UnicodeEncodeError:  # lone surrogates
        return False


def _is_plain_part(part: str) -> bool:
    return (
        part != ""
        and not part.startswith(".")
        and "\\" not in part
        and part.isprintable()
        and len(part.encode("utf-8")) <= _LONGEST_PART
    )


def is_content(name: str) -> bool:
    """Whether an object or file is part of what is shared: not a lease, not a file half written."""
    return not name.endswith((".tmp", f"/{LEASE_FILE}"))

"""`kintsugi nodes`."""

from __future__ import annotations

from .. import console
from ..options import AsJson

EXAMPLE = "Example: kintsugi nodes --json > object_info.json"


def nodes(as_json: AsJson = False) -> None:
    """List every node that runs without ComfyUI; --json gives what a server's /object_info would."""
    from ..node_registry import full_registry

    info = full_registry().object_info()
    if as_json:
        console.say_json(info)
        return
    rows = sorted((entry["category"], name, entry["display_name"]) for name, entry in info.items())
    console.say_table(("id", "name", "category"), [(name, title, category) for category, name, title in rows])

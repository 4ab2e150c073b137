"""Where the nodes of a run stand: the node a person sees, and the node of the prompt as sent that each came from."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.graph.events import running_node


@dataclass(frozen=True)
class Place:
    """A node. display: the one a person sees doing its work. parent: the one whose expansion made it. real: the one of the
    prompt as sent."""

    node: str
    display: str
    parent: str | None
    real: str

    def as_metadata(self) -> dict[str, str | None]:
        """As history tells it."""
        return {"node_id": self.node, "display_node": self.display, "parent_node": self.parent, "real_node_id": self.real}

    def of_prompt(self, prompt_id: str) -> dict[str, str | None]:
        """As progress and previews tell it."""
        return {
            "node_id": self.node,
            "prompt_id": prompt_id,
            "display_node_id": self.display,
            "parent_node_id": self.parent,
            "real_node_id": self.real,
        }


class Places:
    """Of every node that was told about so far. To be asked while the run tells about the node."""

    def __init__(self, sent: frozenset[str]) -> None:
        self._sent = sent
        self._known: dict[str, Place] = {}

    def of(self, node_id: str) -> Place:
        """A node of the prompt as sent stands for itself; one that grew is placed by the node that is running."""
        place = self._known.get(node_id)
        if place is None:
            place = self._known[node_id] = Place(node_id, node_id, None, node_id) if node_id in self._sent else self._grown(node_id)
        return place

    def _grown(self, node_id: str) -> Place:
        """Told about while it runs, or as a remembered result while the node runs whose expansion made it."""
        running = running_node()
        if running is None:
            return Place(node_id, node_id, None, node_id)
        parent = running.parent_id if running.node_id == node_id else running.node_id
        real = node_id if parent is None else self.of(parent).real
        return Place(node_id, running.display_id, parent, real)

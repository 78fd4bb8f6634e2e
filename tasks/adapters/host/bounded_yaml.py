"""Read YAML in bounded time: its library takes half a minute for a hundred kilobytes of brackets in brackets."""

from __future__ import annotations

import yaml

FLOW_DEPTH_LIMIT = 50


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses brackets nested deeper than any file of people has."""

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        """Begin a list or mapping in brackets."""
        if self.flow_level >= FLOW_DEPTH_LIMIT:
            raise yaml.YAMLError(f"brackets are nested more than {FLOW_DEPTH_LIMIT} deep")
        super().fetch_flow_collection_start(TokenClass)

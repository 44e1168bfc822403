"""What is expected: which clients' pipelines have deliveries."""

from etl.config.delivery import Delivery
from etl.config.pipeline import Config, Pair, definition_of, pairs_of


def delivering(config: Config, client: str | None = None) -> dict[Pair, Delivery]:
    """Return the clients' pipelines that have deliveries, and what is expected of them."""
    found: dict[Pair, Delivery] = {}
    for pair in pairs_of(config, client):
        definition = definition_of(config, *pair)
        if definition.delivery is not None:
            found[pair] = definition.delivery
    return found

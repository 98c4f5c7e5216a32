"""The way of a request: checked, held against a context, sent to a model server, its answer relayed, written down."""

"""A base model on a server: the engine's protocol over HTTP.

Contract: knows no algorithm. `address` is what a person gives, `link` the connection, `servers` the protocols,
`probing` finds out which of them a server speaks, and `context` answers an engine's questions.
"""

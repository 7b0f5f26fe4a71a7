"""One call: `machine` decides (no I/O), `session` lets it live between the bus, its legs and its media.

`inputs` is all that may happen to a call and `effects` all that it may want; `table` says what does what. The handlers
are grouped by subject: `inbound`, `outbound`, `conversation`, `transfer`, `ending`.
"""

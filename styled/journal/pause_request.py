"""How `styled pause` tells the daemon to pause: by the journal."""

from __future__ import annotations

PAUSE_REQUEST = "pause_request"
"""The journal's state of this key tells whether `styled pause` is in force: empty (it is not),
`now` or `after-current`."""

NOW, AFTER_CURRENT = "now", "after-current"

PAUSE_REQUEST_REASON = "on request; styled resume continues it"
"""The reason of such a pause."""

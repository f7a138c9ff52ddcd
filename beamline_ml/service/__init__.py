"""Keep the chain running: the embedded stack, the watcher that starts fits, and the checks of ``doctor``."""

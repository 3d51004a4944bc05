"""Starts the page where another program hosts it, as hosts of Gradio pages do: they run this file and decide who may see the page.

PORT names the port, 7860 by default. DAGAN_PASSWORD asks visitors for a password.
"""

import os

from dagan.app.server import PageSettings, serve
from dagan.engine.open import open_engine
from dagan.processes import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    port = int(os.environ.get("PORT", "7860"))
    serve(open_engine, PageSettings(host="0.0.0.0", port=port, password=os.environ.get("DAGAN_PASSWORD") or None, hosted=True))

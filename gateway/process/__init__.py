"""How processes are started, kept and ended."""

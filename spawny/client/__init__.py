"""The caller's side: starting daemons, attaching to them, and using their objects as if local."""

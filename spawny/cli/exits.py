"""Exit codes, which scripts rely on."""

OK = 0
FAILED = 1
USAGE = 2  # argparse's own
NO_DAEMON = 3
NO_SUPERVISOR = 4
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

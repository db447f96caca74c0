"""The supervisor: starts daemons, watches them, restarts them, and tells clients about them.

Decide, then do. `core` turns an event into actions without touching a clock, a socket or a process;
`run` waits for the world, tells the core what happened and performs what it answers.
"""

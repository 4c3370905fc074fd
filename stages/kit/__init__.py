"""What no output depends on: command line, parameters, files, progress, locks, processes. No dependency."""

"""The command layer that the three programs share: arguments, sub-commands, YAML, exit statuses, progress."""

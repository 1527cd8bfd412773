"""The ``utcp`` command."""

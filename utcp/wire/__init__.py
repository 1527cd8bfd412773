"""The bytes: sequence arithmetic and the segment codec. No state, no I/O (RFC 9293 3.1, 3.4)."""

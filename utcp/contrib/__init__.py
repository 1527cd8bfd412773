"""utcp in the words of other libraries, a module each. ``import utcp`` imports none of them."""

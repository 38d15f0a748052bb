"""How what was built is run: each setting in the words of this build's own tools."""

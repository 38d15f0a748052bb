"""How an artifact travels: as one file, through an OCI registry."""

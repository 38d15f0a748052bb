"""One page about many artifacts: what they are, what they can do, how their builds went."""

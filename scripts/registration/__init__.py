"""Registration of pairs: from the network's input to the fixed image's own grid, for one pair and for many."""

"""How the network is computed: sampling, filters and convolutions with exact gradients, compilation, memory."""

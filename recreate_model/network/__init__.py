"""The network and what is known of it: layers, names, labels, published figures."""

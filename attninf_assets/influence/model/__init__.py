"""The decoder's forward pass: packed rows, masked heads, several streams, losses in tiles."""

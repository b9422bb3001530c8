"""The decoder as this project runs it: packed rows, masked heads, several streams, losses in tiles."""

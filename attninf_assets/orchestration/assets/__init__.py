"""The assets, one module per stage; `definitions.py` lists them."""

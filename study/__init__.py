"""The method's claims, re-run from the assets that ship: `python study/everything.py`, or `make study`."""

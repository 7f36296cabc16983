"""Data sets in the challenge's layout out of any folder of pictures."""

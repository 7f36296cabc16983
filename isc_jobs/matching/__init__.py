"""Copies among the pictures of any folders. Describing needs torch, in a process of its own; searching needs none."""

"""Profiles: settings files that ship with the package."""

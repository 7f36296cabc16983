"""The controller: observe, plan, apply, until a run is done."""

"""The HTML report: charts, galleries, one self-contained page."""

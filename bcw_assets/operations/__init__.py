"""Whoever runs this every week: the history of runs, alerts, the exporter, housekeeping."""

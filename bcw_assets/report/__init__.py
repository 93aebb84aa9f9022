"""What people read of a report: tables, the figure and the model card. Every number comes from the report."""

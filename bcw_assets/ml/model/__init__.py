"""From the table to a fitted model, to its numbers, and to predictions of patients that it has not seen."""

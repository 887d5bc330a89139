"""What export formats share: their base class, the draft folder with its records, and tables with image columns."""

"""Values and their types: casts, times, inference, cursors."""

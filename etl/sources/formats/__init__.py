"""What files hold: one module per format."""

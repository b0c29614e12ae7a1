"""What a whole reply must follow, as a value and as what llguidance reads."""

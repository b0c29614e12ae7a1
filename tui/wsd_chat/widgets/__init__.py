"""What the chat's screens are made of."""

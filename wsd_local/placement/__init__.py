"""What models take, and where they go."""

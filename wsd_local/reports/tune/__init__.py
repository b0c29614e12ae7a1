"""What this machine does with a pair: settings measured in turns, and which of them make a reply faster."""

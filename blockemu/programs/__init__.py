"""What the five programs are made of: options, what they print, how they start and end."""

"""What an architecture is: choices, validity, shapes and cost. Needs the standard library and numpy alone."""

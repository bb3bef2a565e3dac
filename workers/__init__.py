"""Where code runs: in this process or on Ray actors."""

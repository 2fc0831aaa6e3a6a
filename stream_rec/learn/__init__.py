"""Training, test-then-train metrics and the gate. Knows no transport and no clock."""

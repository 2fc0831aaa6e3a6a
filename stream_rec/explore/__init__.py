"""Which candidate a slot shows, with what probability, and what is learned from it. Knows no transport and no clock."""

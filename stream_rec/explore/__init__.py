"""From scores to the slate that is shown. Knows no transport and no clock."""

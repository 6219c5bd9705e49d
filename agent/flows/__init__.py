"""What recorded verdicts tell: values read from a recording, and what policies would make of them. No I/O, no clock."""

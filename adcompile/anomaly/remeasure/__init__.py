"""What a head's constants are, and how they are measured again on the network that really runs."""

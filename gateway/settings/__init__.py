"""What a node and its commands can be told: each setting once, and how it is read and shown."""

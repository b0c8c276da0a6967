"""What tests stand on: real brokers and nodes, a TCP proxy for faults, waiting with a budget. No fakes."""

"""What an operator has: broker configuration, load balancer, the stack on one machine. Real processes only."""

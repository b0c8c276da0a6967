"""What the software says of itself: metrics, log lines, and the clock that dates them."""

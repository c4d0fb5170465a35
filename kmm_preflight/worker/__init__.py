"""What a node does with an image before its loader sees a kmod."""

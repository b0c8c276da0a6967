"""What hiroba means by a room, an entry, a frame. Pure: no I/O, no clock."""

"""How bytes get to the disk and back: durably, all or nothing, every one of them hashed."""

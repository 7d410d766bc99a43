"""Programs to run, read and copy from: ``functrain train digits``, ``functrain train chargpt``."""

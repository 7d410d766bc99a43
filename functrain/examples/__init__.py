"""Examples to run, read and copy: ``functrain train digits``, ``functrain train chargpt``."""

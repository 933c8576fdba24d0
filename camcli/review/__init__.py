"""What is done with a finished run: read it, show it as a page, compare two, hand it on."""

"""Files in, clean and split examples out; the one place where a prompt and its loss mask are built."""

"""The winner behind an API, and what its users think of the answers."""

"""Read tables of captions as text: encoding, header, rows."""

"""Tables of captions as text: encoding, header, rows."""

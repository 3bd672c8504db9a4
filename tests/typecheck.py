"""The checker of shapes and types while tests run: beartype, an int being accepted for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))

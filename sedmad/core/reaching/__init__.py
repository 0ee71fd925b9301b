"""How nodes behind NATs reach each other: what NATs do, and what follows from it. Pure."""

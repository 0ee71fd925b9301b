"""How exact products are computed where BLAS alone is slow or wrong: few columns, few bits, integers. Its front is
`crossbar.ideal`."""

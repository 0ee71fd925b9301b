"""Words in, tables out: the command `sedmad`.

main.py            the command line: global options, the verb, errors and exit codes
verbs/             one module per verb: `configure(parser)` says what it takes, `run(arguments)` does it
terminal.py        colours and what may be shown of foreign text
table.py           columns
report.py          errors in three lines, the table of exit codes
json_contract.py   what --json prints, field by field; checks_contract.py for netcheck and doctor
progress.py        bars for long work

Results go to stdout, everything else to stderr. A verb is imported when it is asked for, so `sedmad status` loads
the client and no more: argparse starts in 90 ms where the richer libraries take 150.
"""

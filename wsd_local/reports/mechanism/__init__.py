"""Why Weak-to-Strong Decoding works on a pair: where a reply is hard for the base, and where the base takes over.

`records` are plain values; `recording` makes those of the base alone, drafts are those of `calibration`. `windows`,
`ranks` and `figures` are rules and arithmetic over them, `grades` asks a judge, `parts` are the tables and charts.
"""

"""Training a draft model: from a preference set to the files that trainers read.

Contract: `columns` and `pairs` know what records mean, `sifting` what is wrong with them, `splitting` which of them are
for validation, `trainers` how TRL and LLaMA-Factory want them; all of these are pure. `sources` reads a file, `folder`
writes a folder. `job` says what is trained and how, `running` starts and follows the process that does it, `worker` is
that process, and the only place that imports a trainer; `reference` is the process that reads a checkpoint by
transformers, for checks. Nothing here knows the command line.
"""

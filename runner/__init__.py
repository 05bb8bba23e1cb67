"""The host controller: a language model proposes, containers measure, statistics decide, git remembers.

    cli/         what a person types: parse, call one function, print
    campaign/    one night, and one experiment from idea to verdict
        studies/     questions asked of a campaign afterwards: reproduce, calibrate, ablate, confirm
    evaluation/  one program → one trial that can be believed: train, score, audit
    proposers/   where ideas come from
        llm/         one module per API, request policy, prices
        researcher/  the conversation, its prompt, memory and tools
    sandbox/     Docker, and nothing else imports it: engine, containers, streams, deadlines
        images/      base images, candidate layers
        doctor/      does this machine keep the sandbox's promises?
    corpus/      text: sources, prepared data sets, and keeping it out of logs
    report/      what people read in the morning
    decision/    pure statistics: keep rule, effect prior, early stopping, history, simulation
    storage/     what outlives the process: ledger, git, claims, pinned evaluation, paths, lock
    edits/       a candidate's files: applied or refused, merged, counted, searched for sealed text
    config.py  records.py  errors.py  failpoints.py  tiers.py  untrusted.py     the ground
    profiles/*.toml

Imports go strictly down this list, enforced by `make check`. `docs/architecture.md` explains each room.
"""

"""The locked evaluation: trusted code, hashed in `manifest.json` and mounted read-only into containers.

    container/    programs that run in containers: PID 1, the candidate's launcher, scorer and auditor
    judging/      arithmetic that runs on the host: scores, audits
    preparation/  from documents to tokens, rows and byte lengths; runs in a trusted container
    manifest.py   hashes of all this

The three packages do not import each other. Nothing here imports the candidate's code, except for two modules that
run as the candidate's user after every privilege is gone: the launcher, and `container/candidate.py`, which scorer
and auditor share.
"""

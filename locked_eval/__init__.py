"""The locked evaluation: trusted code, mounted read-only into containers, hashed in `manifest.json`.

Nothing here imports anything of the candidate's, except the launcher and the scorer, which run as the
candidate's user after the supervisor has dropped every privilege.
"""

"""Sizes of the model and of its batches, one module per profile; `train.py` loads the one that `PROFILE` names."""

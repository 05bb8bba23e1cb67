"""Data on the host: fetch a corpus, name and check prepared data sets. Nothing here decodes untrusted files.

`fetch_source` brings the documents onto this machine, `prepare_arguments` gives the arguments with which the
container turns them into tokens, `data_key` names the result, and `open_data` checks every byte before it is used.
"""

from runner.corpus.dataset import DataSet, data_key, open_data, prepare_arguments
from runner.corpus.sotu import SOTU_CREDIT
from runner.corpus.source import Source, fetch_source

__all__ = [
    "SOTU_CREDIT",
    "DataSet",
    "Source",
    "data_key",
    "fetch_source",
    "open_data",
    "prepare_arguments",
]

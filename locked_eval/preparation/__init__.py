"""From a corpus to a data set, in a trusted container without network.

    prepare     the program that the container starts: the whole, in order
    options     its command line
    documents   reads the documents of a source
    splits      assigns each document to training, validation or test
    shingles    13-word shingles: the measure of shared text
    duplicates  takes near duplicates of sealed documents out
    index       an index of all documents, to keep their text out of logs
    tokenizer   byte-pair encoding
    shards      training tokens
    rows        validation and test rows
    proof       counts shared text again, from the written files
    publish     meta data, manifest, and the move into place
    progress    lines for a person who waits

Every file here is part of a data set's key (`runner.storage.pinned_evaluation.preparation_digest`): a change means
that data is prepared anew.
"""

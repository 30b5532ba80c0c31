"""Results and data on shared storage: a bucket is what is shared, a local mirror of it is where work happens.

address    which text is a URL, and its parts
names      which objects may become files
faults     what storage libraries raise, in one line and without secrets
objects    the calls on a bucket: list, read, create, replace where unchanged, remove
mirror     a bucket's folder on this machine, and what of it is known to be in the bucket
pulling    objects -> files, those that changed
pushing    files -> objects, those that changed
rows       the rows of a run out of rows.jsonl, segments and what was not sent
lease      one writer of a run, over all machines
uploading  rows to the bucket while a run goes on
run        a run folder that is shared: RunStore over all of these
folders    what commands call; on a folder that is no mirror it does nothing
"""

"""What a node keeps: the only room that touches the disk and sqlite3. Signed records are opaque bytes here.

database.py      one SQLite file: grouped commits, reads off the event loop
sqlite_errors.py what SQLite says of the disk, in our words
schema.py        its tables, as a list of migrations
snapshots.py     a second copy of it, and what is done when it is damaged
snapshotting.py  taking snapshots while the node runs
manifests.py     manifests and tombstones, ordered by (epoch, seq)
promises.py      epochs this node promised as a guardian
holdings.py      the copies this node holds; blobs counted by digest
records.py       gossip records: adverts and claims
invitations.py   tokens that admit one node each
counters.py      numbers that only grow
settings.py      what this node decided for itself
puts.py          puts under way, for cleaning up after a restart
blobs.py         partition bytes as files named by digest
blob.py          one of them: mapped, or read from the disk itself
spool.py         writing one blob while its bytes stream in
digests.py       how a partition's digest is defined
disk.py          space and its reserve, fsync of directories, errors of the disk
lock.py          one daemon per home
"""

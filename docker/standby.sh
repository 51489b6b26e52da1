#!/bin/bash
# A streaming standby of `primary`: copied when its data folder is empty, then started.
set -euo pipefail
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
    pg_basebackup --host=primary --username=replicator --pgdata="$data" --write-recovery-conf \
        --wal-method=stream --checkpoint=fast
    chmod 0700 "$data"
fi
exec postgres -D "$data" -c hot_standby=on -c hot_standby_feedback=on

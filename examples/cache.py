#!/usr/bin/python3
"""A cache in each pod that is never stale: it replaces a cache of 30 seconds, and a warm-up with a copy of everything in a file.

Each pod lists what it needs once, and then follows the changes: the moment at which one pod has saved something, every other pod has it.  If the place in
the feed is lost (KV003: the server was restarted, or the pod has slept too long), it lists again.

    PGHOST=... PGDATABASE=... python3 cache.py        (Debian: python3-psycopg2; the database has CREATE EXTENSION kvstore, which needs shared_preload_libraries)

Run like this it plays two pods: one saves, and it is measured when the other one has it.
"""
import statistics
import threading
import time

import psycopg2


class Cache:
    """All entries of a prefix, as they are now."""

    def __init__(self, prefix, store='default'):
        self.prefix, self.store = prefix, store
        self.entries = {}                       # key -> (value, versionstamp)
        self.ready = threading.Event()          # for a readiness probe: the cache is there
        self.changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def get(self, key):
        value, _, expires_at = self.entries.get(key, (None, 0, None))
        return None if expires_at and expires_at.timestamp() <= time.time() else value

    # ---- Following, in a thread with a connection of its own ----

    def _run(self):
        while True:
            try:
                with_connection = psycopg2.connect('')
                with_connection.autocommit = True
                self._follow(with_connection.cursor())
            except psycopg2.OperationalError:
                self.ready.clear()              # what is here may be old from now on
                time.sleep(1)
            except psycopg2.Error as error:
                if error.pgcode != 'KV003':     # the place is lost: list again
                    raise
                self.ready.clear()

    def _follow(self, cursor):
        # 1. A position, in a statement of its own, before the list: what is committed in between is told twice rather than never.
        cursor.execute('SELECT kv_feed_position()')
        position, = cursor.fetchone()
        # 2. The list.
        self._list(cursor)
        self.ready.set()
        # 3. The changes, for ever.  CALL kv_wait_changes() holds no snapshot while there is nothing to tell.
        while True:
            cursor.execute("CALL kv_wait_changes(%s, %s::text, '1 minute', %s)", (position, self.prefix, self.store))
            cursor.execute('SELECT feed_position, operation, key FROM kv_changes(%s, %s::text, store => %s)',
                           (position, self.prefix, self.store))
            changes = cursor.fetchall()
            position = changes[-1][0]
            if any(operation in ('delete_prefix', 'clear') for _, operation, _ in changes):
                self._list(cursor)
            else:
                self._read(cursor, [key for _, operation, key in changes if operation != 'progress'])

    def _list(self, cursor):
        cursor.execute('SELECT key, value, versionstamp, expires_at FROM kv_list(%s::text, store => %s)', (self.prefix, self.store))
        entries = {key: rest for key, *rest in cursor}
        with self.changed:
            self.entries = entries
            self.changed.notify_all()

    def _read(self, cursor, keys):
        """The feed says which entries changed; what they are now is read here, in a later statement."""
        cursor.execute('SELECT key, value, versionstamp, expires_at FROM kv_get_many(%s::text[], %s)', (keys, self.store))
        with self.changed:
            for key, *rest in cursor:
                if rest[1] == 0:
                    self.entries.pop(key, None)
                else:
                    self.entries[key] = rest
            self.changed.notify_all()


def main():
    pod1 = psycopg2.connect('')
    pod1.autocommit = True
    pod1_cursor = pod1.cursor()
    pod1_cursor.execute("SELECT kv_create_store('configs', if_not_exists => true)")
    pod1_cursor.execute("SELECT kv_set('slack:config:T1', '\"first\"', store => 'configs')")

    pod2 = Cache('slack:config:', 'configs')
    pod2.ready.wait(30)
    print('pod 2 has started and knows:', pod2.get('slack:config:T1'))

    times = []
    for n in range(200):
        pod1_cursor.execute("SELECT kv_set('slack:config:T1', to_jsonb(%s::int), store => 'configs')", (n,))
        saved = time.monotonic()
        with pod2.changed:
            if not pod2.changed.wait_for(lambda: pod2.get('slack:config:T1') == n, 30):
                raise SystemExit('pod 2 never had it')
        times.append(1000 * (time.monotonic() - saved))
        time.sleep(0.005)
    print('after pod 1 had saved it, pod 2 had it in %.2f ms (median of %d; the slowest %.2f ms)' % (statistics.median(times), len(times), max(times)))

    pod1_cursor.execute("SELECT kv_delete_prefix('slack:', 'configs')")
    with pod2.changed:
        pod2.changed.wait_for(lambda: not pod2.entries, 30)
    print('after pod 1 has deleted all, pod 2 knows:', pod2.entries)


if __name__ == '__main__':
    main()

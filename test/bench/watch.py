#!/usr/bin/python3
"""How soon a watcher has the row, measured from the moment at which the writer sends COMMIT; and the same with LISTEN/NOTIFY.

Usage: watch.py latency ROUNDS | many WATCHERS      (with PGHOST, PGPORT, PGUSER; needs psycopg2, Debian: python3-psycopg2)
Prints lines "name value" in milliseconds.  Each watcher is a process of its own; time.monotonic() is one clock for all of them.
"""
import multiprocessing
import select
import sys
import time

import psycopg2


def connect():
    connection = psycopg2.connect(dbname='postgres')
    connection.autocommit = True
    return connection


def watch(last, ready, results):
    cursor = connect().cursor()
    cursor.execute("SELECT versionstamp FROM kv_entry('latency')")
    version = cursor.fetchone()[0]
    ready.set()
    seen = {}
    while True:
        cursor.execute("SELECT value, versionstamp FROM kv_watch(ARRAY['latency'], ARRAY[%s]::bigint[])", (version,))
        now = time.monotonic()
        rows = cursor.fetchall()
        if rows:
            value, version = rows[0]
            seen[value] = now
            if value == last:
                break
    results.put(seen)


def listen(last, ready, results):
    connection = connect()
    connection.cursor().execute('LISTEN latency')
    ready.set()
    seen = {}
    while last not in seen:
        select.select([connection], [], [])
        connection.poll()
        now = time.monotonic()
        for notify in connection.notifies:
            seen[int(notify.payload)] = now
        connection.notifies.clear()
    results.put(seen)


def measure(name, reader, statement, rounds):
    ready, results = multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(target=reader, args=(rounds, ready, results))
    process.start()
    ready.wait()
    connection = connect()
    connection.autocommit = False
    cursor = connection.cursor()
    sent = {}
    for n in range(1, rounds + 1):
        cursor.execute(statement, (str(n),))
        sent[n] = time.monotonic()
        connection.commit()
        time.sleep(0.002)
    seen = results.get()
    process.join()
    # a watcher may miss a state that was overwritten before it looked
    times = sorted(1000 * (seen[n] - sent[n]) for n in seen if n in sent)
    print(name + '_p50', '%.3f' % times[len(times) // 2])
    print(name + '_p99', '%.3f' % times[len(times) * 99 // 100])
    print(name + '_seen', len(times))


def watch_once(ready, results):
    cursor = connect().cursor()
    cursor.execute("SELECT versionstamp FROM kv_entry('many')")
    version = cursor.fetchone()[0]
    ready.release()
    cursor.execute("SELECT value FROM kv_watch(ARRAY['many'], ARRAY[%s]::bigint[], '60 s')", (version,))
    results.put(time.monotonic())


def many(count):
    ready, results = multiprocessing.Semaphore(0), multiprocessing.Queue()
    cursor = connect().cursor()
    cursor.execute("SELECT kv_set('many', '0')")
    watchers = [multiprocessing.Process(target=watch_once, args=(ready, results)) for _ in range(count)]
    for process in watchers:
        process.start()
    for _ in watchers:
        ready.acquire()
    waiting = 0
    while waiting < count:
        cursor.execute("SELECT count(*) FROM kvstore.waiters()")
        waiting = cursor.fetchone()[0]
        time.sleep(0.05)
    time.sleep(0.2)
    sent = time.monotonic()
    cursor.execute("SELECT kv_set('many', '1')")
    own = time.monotonic()
    times = [results.get() for _ in watchers]
    print('writer', '%.3f' % (1000 * (own - sent)))
    print('last', '%.3f' % (1000 * (max(times) - sent)))
    for process in watchers:
        process.join()


if sys.argv[1] == 'latency':
    measure('watch', watch, "SELECT kv_set('latency', %s::jsonb)", int(sys.argv[2]))
    measure('notify', listen, "SELECT pg_notify('latency', %s)", int(sys.argv[2]))
else:
    many(int(sys.argv[2]))

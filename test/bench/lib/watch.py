#!/usr/bin/python3
"""How soon a watcher or a consumer has the row, measured from the moment at which the writer sends COMMIT; and the same with LISTEN/NOTIFY.

Usage: watch.py latency ROUNDS | many WATCHERS | idle WATCHERS | follow | listen | queue_latency ROUNDS | queue_idle CONSUMERS | queue_consume CONSUMERS |
queue_consume_notified CONSUMERS      (with PGHOST, PGPORT, PGUSER; needs psycopg2, Debian: python3-psycopg2)
Prints lines "name value" in milliseconds.  Each watcher is a process of its own; time.monotonic() is one clock for all of them.
"""
import multiprocessing
import select
import sys
import time

import psycopg2
import psycopg2.extensions
import psycopg2.extras


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


def receive(last, ready, results):
    cursor = connect().cursor()
    ready.set()
    seen = {}
    while last not in seen:
        cursor.execute("SELECT payload FROM kv_dequeue('bench', lease => '1 minute', wait => '1 minute')")
        now = time.monotonic()
        for value, in cursor.fetchall():
            seen[value] = now
    results.put(seen)


def receive_notified(last, ready, results):
    connection = connect()
    cursor = connection.cursor()
    cursor.execute('LISTEN latency')
    ready.set()
    seen = {}
    while last not in seen:
        select.select([connection], [], [])
        connection.poll()
        connection.notifies.clear()
        cursor.execute("SELECT payload FROM kv_dequeue('bench', 100, lease => '1 minute')")
        now = time.monotonic()
        for value, in cursor.fetchall():
            seen[value] = now
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


def connect_many(count):
    """Connections that do not wait for answers, so that one process is the client of all."""
    connections = []
    for _ in range(count):
        connection = psycopg2.connect(dbname='postgres', async_=True)
        while True:
            state = connection.poll()
            if state == psycopg2.extensions.POLL_OK:
                break
            wanted = [connection] if state == psycopg2.extensions.POLL_READ else [], [connection] if state == psycopg2.extensions.POLL_WRITE else []
            select.select(*wanted, [])
        connections.append(connection)
    return connections


def many(count):
    """How soon all watchers of one key are told: until the last one's answer is here."""
    cursor = connect().cursor()
    cursor.execute("SELECT kv_set('many', '0')")
    version, = cursor.fetchone()
    connections = connect_many(count)
    poller = select.epoll()
    for connection in connections:
        connection.cursor().execute("SELECT value FROM kv_watch(ARRAY['many'], ARRAY[%s]::bigint[], '60 s')", (version,))
        poller.register(connection.fileno(), select.EPOLLIN)
    waiting = 0
    while waiting < count:
        cursor.execute('SELECT count(*) FROM kvstore.waiters()')
        waiting, = cursor.fetchone()
        time.sleep(0.05)
    time.sleep(0.2)
    left = count
    sent = time.monotonic()
    cursor.execute("SELECT kv_set('many', '1')")
    own = time.monotonic()
    while left > 0:
        for fileno, _ in poller.poll():
            poller.unregister(fileno)
            left -= 1
    print('many_last', '%.1f' % (1000 * (time.monotonic() - sent)))
    print('many_writer', '%.1f' % (1000 * (own - sent)))


def idle(count):
    """Watchers of other keys, until this is killed."""
    connections = connect_many(count)
    for n, connection in enumerate(connections):
        connection.cursor().execute("SELECT value FROM kv_watch(ARRAY['idle' || %s], ARRAY[0]::bigint[], '1 hour')", (n,))
    time.sleep(3600)


def follow():
    """One follower of all changes, until this is killed."""
    cursor = connect().cursor()
    cursor.execute('SELECT kv_feed_position()')
    position, = cursor.fetchone()
    while True:
        cursor.execute("SELECT max(feed_position) FROM kv_changes(%s, ''::text, '1 minute', 100000)", (position,))
        position, = cursor.fetchone()


def listen_all():
    """One listener, until this is killed."""
    connection = connect()
    connection.cursor().execute('LISTEN changes')
    while True:
        select.select([connection], [], [])
        connection.poll()
        connection.notifies.clear()


def queue_idle(count):
    """Consumers of an empty queue, until this is killed."""
    connections = connect_many(count)
    for connection in connections:
        connection.cursor().execute("SELECT payload FROM kv_dequeue('bench', wait => '1 hour')")
    time.sleep(3600)


def queue_consume(count, notified):
    """Consumers that receive and acknowledge in one statement, until this is killed; they wait in it, or for a notification."""
    statement = "SELECT count(kv_ack(receipt)) FROM kv_dequeue('bench', 100%s)" % ('' if notified else ", wait => '1 minute'")
    poller = select.epoll()
    consumers = {}
    for connection in connect_many(count):
        cursor = connection.cursor()
        if notified:
            cursor.execute('LISTEN bench')
            psycopg2.extras.wait_select(connection)
        cursor.execute(statement)
        poller.register(connection.fileno(), select.EPOLLIN)
        consumers[connection.fileno()] = [connection, cursor, True]
    while True:
        for fileno, _ in poller.poll():
            connection, cursor, busy = consumer = consumers[fileno]
            if connection.poll() != psycopg2.extensions.POLL_OK:
                continue
            told = len(connection.notifies) > 0
            connection.notifies.clear()
            # with notifications: on as long as there is something, and once for what was told meanwhile
            consumer[2] = not notified or told or (busy and cursor.fetchone()[0] > 0)
            if consumer[2]:
                cursor.execute(statement)


if sys.argv[1] == 'latency':
    measure('watch', watch, "SELECT kv_set('latency', %s::jsonb)", int(sys.argv[2]))
    measure('notify', listen, "SELECT kv_set('latency', '0'), pg_notify('latency', %s)", int(sys.argv[2]))
elif sys.argv[1] == 'many':
    many(int(sys.argv[2]))
elif sys.argv[1] == 'idle':
    idle(int(sys.argv[2]))
elif sys.argv[1] == 'follow':
    follow()
elif sys.argv[1] == 'queue_latency':
    measure('queue', receive, "SELECT kv_enqueue('bench', %s::jsonb)", int(sys.argv[2]))
    measure('notify', receive_notified, "SELECT kv_enqueue('bench', %s::jsonb), pg_notify('latency', '')", int(sys.argv[2]))
elif sys.argv[1] == 'queue_idle':
    queue_idle(int(sys.argv[2]))
elif sys.argv[1] in ('queue_consume', 'queue_consume_notified'):
    queue_consume(int(sys.argv[2]), sys.argv[1] == 'queue_consume_notified')
else:
    listen_all()

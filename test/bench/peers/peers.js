// Messages a second through a queue, one at a time: node peers.js QUEUE SECONDS
//
// QUEUE is kv, kv_many, hand, pgq, graphile, boss or redis, the server that of the environment (PGHOST ..., REDIS_SOCKET).  Four loops, each with a connection of its
// own, send a message, take one and acknowledge it; where a library has its own way to take them, that runs beside four loops that send, and
// never gets further behind than 1,000.  All through the same kind of client, so the rates can be compared with each other, and with nothing else: what limits the
// fastest of them is Node.
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const LOOPS = 4;
const AHEAD = 1000;
const payload = { to: 'someone@example.org', template: 'welcome', user: 4821, locale: 'en', n: '0123456789' };
const text = JSON.stringify(payload);
const [queue, seconds] = [process.argv[2], Number(process.argv[3])];
let sent = 0;
let done = 0;
let running = true;

async function connect() {
	const client = new pg.Client();
	await client.connect();
	return client;
}

// A prepared statement, as each of these would be used.
const query = (client, name, sql, values) => client.query({ name, text: sql, values }).then((result) => result.rows);

async function loops(once, prepare = connect) {
	const clients = await Promise.all(Array.from({ length: LOOPS }, prepare));
	return Promise.all(clients.map(async (client) => {
		while (running) await once(client);
		await client.end();
	}));
}

// Sends, not too far ahead of who receives.
async function senders(send) {
	return loops(async (client) => {
		if (sent - done > AHEAD) return sleep(1);
		await send(client);
		sent++;
	});
}

const kinds = {
	async kv() {
		await loops(async (client) => {
			await query(client, 'send', "SELECT kv_enqueue('peers', $1::jsonb)", [text]);
			const [message] = await query(client, 'take', "SELECT id, payload, receipt FROM kv_dequeue('peers')", []);
			if (message && (await query(client, 'ack', 'SELECT kv_ack($1) AS good', [message.receipt]))[0].good) done++;
		});
	},

	// Taken and acknowledged as they are of PgQ: by one consumer, many at once.
	async kv_many() {
		const consumer = await connect();
		await Promise.all([
			senders((client) => query(client, 'send', "SELECT kv_enqueue('peers', $1::jsonb)", [text])),
			(async () => {
				while (running) {
					const messages = await query(consumer, 'take', "SELECT id, payload, receipt FROM kv_dequeue('peers', 500)", []);
					if (messages.length === 0) {
						await sleep(5);
						continue;
					}
					const [{ good }] = await query(consumer, 'ack', 'SELECT kv_ack_many($1) AS good', [messages.map((message) => message.receipt)]);
					done += Number(good);
				}
				await consumer.end();
			})(),
		]);
	},

	async hand() {
		await loops(async (client) => {
			await query(client, 'send', 'INSERT INTO hand_queue (payload) VALUES ($1::jsonb) RETURNING id', [text]);
			const [job] = await query(client, 'take', `UPDATE hand_queue SET leased_until = now() + interval '30 s', attempts = attempts + 1
				WHERE id = (SELECT id FROM hand_queue WHERE ready_at <= now() AND (leased_until IS NULL OR leased_until < now())
				ORDER BY ready_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, payload, attempts`, []);
			if (job && (await query(client, 'ack', 'DELETE FROM hand_queue WHERE id = $1 AND attempts = $2 RETURNING id', [job.id, job.attempts])).length) done++;
		});
	},

	// A consumer gets what has come between two ticks; a tick each 100 ms, or 500 events.
	async pgq() {
		const consumer = await connect();
		const ticker = await connect();
		await consumer.query("SELECT pgq.create_queue('peers'), pgq.register_consumer('peers', 'bench')");
		await consumer.query("SELECT pgq.set_queue_config('peers', 'ticker_max_lag', '100 ms'), pgq.set_queue_config('peers', 'ticker_idle_period', '1 s')");
		await Promise.all([
			senders((client) => query(client, 'send', "SELECT pgq.insert_event('peers', 'message', $1)", [text])),
			(async () => {
				while (running) {
					await ticker.query("SELECT pgq.ticker('peers')");
					await sleep(20);
				}
				await ticker.end();
			})(),
			(async () => {
				while (running) {
					const [{ id }] = await query(consumer, 'next', "SELECT pgq.next_batch('peers', 'bench') AS id", []);
					if (id === null) {
						await sleep(5);
						continue;
					}
					const events = await query(consumer, 'events', 'SELECT * FROM pgq.get_batch_events($1)', [id]);
					await query(consumer, 'finish', 'SELECT pgq.finish_batch($1)', [id]);
					done += events.length;
				}
				await consumer.end();
			})(),
		]);
	},

	async graphile() {
		const { run, runMigrations, Logger } = await import('graphile-worker');
		const pgPool = new pg.Pool({ max: LOOPS + 2 });
		pgPool.on('error', () => {});
		pgPool.on('connect', (client) => client.on('error', () => {}));
		const options = { pgPool, logger: new Logger(() => () => {}) };
		await runMigrations(options);
		const runner = await run({ ...options, concurrency: LOOPS, noHandleSignals: true, taskList: { message: async () => { done++; } } });
		await senders((client) => query(client, 'send', "SELECT id FROM graphile_worker.add_job('message', $1::json)", [text]));
		await runner.stop();
		await pgPool.end();
	},

	async boss() {
		const { default: PgBoss } = await import('pg-boss');
		const boss = new PgBoss({ max: LOOPS, db: undefined, host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER, database: process.env.PGDATABASE });
		await boss.start();
		await boss.createQueue('peers');
		await loops(async () => {
			await boss.send('peers', payload);
			const [job] = (await boss.fetch('peers')) ?? [];
			if (!job) return;
			await boss.complete('peers', job.id);
			done++;
		}, () => ({ end() {} }));
		await boss.stop({ graceful: false });
	},

	// LPUSH; LMOVE into a list of this consumer; LREM from that.  The payload is unlike all others, as LREM removes by value.
	async redis() {
		let number = 0;
		const open = async () => {
			const socket = net.createConnection(process.env.REDIS_SOCKET);
			const waiting = [];
			let rest = Buffer.alloc(0);
			await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
			// One command at a time: a reply is complete when its last line is.
			socket.on('data', (data) => {
				rest = Buffer.concat([rest, data]);
				const line = rest.indexOf('\r\n');
				if (line < 0) return;
				const head = rest.toString('latin1', 1, line);
				let value = head;
				let end = line + 2;
				if (rest[0] === 0x24 && Number(head) >= 0) {
					end += Number(head) + 2;
					if (rest.length < end) return;
					value = rest.toString('utf8', line + 2, end - 2);
				}
				const { resolve, reject } = waiting.shift();
				if (rest[0] === 0x2d) reject(new Error(head));
				else resolve(value);
				rest = rest.subarray(end);
			});
			const list = `taken:${number++}`;
			return {
				list,
				command: (...parts) => new Promise((resolve, reject) => {
					waiting.push({ resolve, reject });
					socket.write(`*${parts.length}\r\n${parts.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`).join('')}`);
				}),
				end: () => socket.end(),
			};
		};
		await loops(async (client) => {
			await client.command('LPUSH', 'peers', JSON.stringify({ ...payload, n: String(sent++).padStart(10, '0') }));
			const message = await client.command('LMOVE', 'peers', client.list, 'RIGHT', 'LEFT');
			if (message !== '-1' && (await client.command('LREM', client.list, '1', message)) === '1') done++;
		}, open);
	},
};

// The first second is for connections, plans and caches.
const work = kinds[queue]();
await Promise.race([work, sleep(1000)]);
const before = [done, performance.now()];
await Promise.race([work, sleep(seconds * 1000)]);
const rate = (done - before[0]) / (performance.now() - before[1]) * 1000;
running = false;
await work;
console.log(rate.toFixed(1));
process.exit(0);

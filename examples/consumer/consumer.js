// A consumer of a kvstore queue: run as many as you like, stop them with SIGTERM, or lose them.
//
//	npm ci && PGDATABASE=shop node consumer.js
//
// A message is processed and acknowledged in one transaction: what work() writes is there exactly once, however often the message is delivered.
// The usual PG* variables lead to the database; behind a transaction-pooling proxy, WAIT_DATABASE is the name there of the pool for those who wait.
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const QUEUE = process.env.QUEUE ?? 'jobs';
const BATCH = Number(process.env.BATCH ?? 20);
const LEASE_MS = Number(process.env.LEASE_MS ?? 30_000);
const WAIT_MS = 30_000;

const pool = new pg.Pool({ max: 2 });
// Who waits holds no message, no snapshot and no lock: this connection can be dropped at any time.
const waiting = new pg.Pool({ max: 1, database: process.env.WAIT_DATABASE ?? process.env.PGDATABASE });
// A connection may end at any time, idle or in the middle of work: the next query on it fails, or the pool makes another.
for (const each of [pool, waiting]) {
	each.on('error', () => {});
	each.on('connect', (client) => client.on('error', () => {}));
}

const log = (...words) => console.error(`consumer ${process.pid}:`, ...words);

let stopping = false;
const stopped = new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve)).then(() => { stopping = true; });

// The work, yours to write: all that it does with this client is one transaction with the acknowledgement.
async function work(client, { id, payload }) {
	if (payload.ms) await sleep(payload.ms); // stands for work that takes its time
	await client.query('INSERT INTO processed (id, consumer) VALUES ($1, $2)', [id, process.pid]);
}

async function receive() {
	const { rows } = await pool.query(
		`SELECT id, payload, receipt FROM kv_dequeue($1, $2, lease => $3 * interval '1 ms')`, [QUEUE, BATCH, LEASE_MS]);
	return rows;
}

// Until there may be something to receive.
function wait() {
	return waiting.query(`CALL kv_wait_queue($1, $2 * interval '1 ms')`, [QUEUE, WAIT_MS]);
}

async function processOne(message) {
	const client = await pool.connect();
	let broken;
	try {
		await client.query('BEGIN');
		await work(client, message);
		const { rows: [{ mine }] } = await client.query('SELECT kv_ack($1) AS mine', [message.receipt]);
		await client.query(mine ? 'COMMIT' : 'ROLLBACK'); // not mine: the lease was over, and somebody else has the message
	} catch (error) {
		log(`message ${message.id}:`, error.message);
		try {
			await client.query('ROLLBACK');
			await client.query('SELECT kv_nack($1, error => $2)', [message.receipt, error.message]);
		} catch (lost) {
			broken = lost; // the connection has gone; the message is delivered again when its lease ends
		}
	} finally {
		client.release(broken);
	}
}

// One after the other.  Those that are not done yet stay ours for as long as it takes, and go back at once when we are stopped.
async function processAll(messages) {
	const receipts = () => messages.map((message) => message.receipt);
	const extend = () => pool.query(`SELECT kv_extend_many($1, $2 * interval '1 ms')`, [receipts(), LEASE_MS])
		.catch((error) => log('extend:', error.message));
	const timer = setInterval(extend, LEASE_MS / 3);
	try {
		while (messages.length > 0 && !stopping) {
			await processOne(messages[0]);
			messages.shift();
		}
	} finally {
		clearInterval(timer);
		if (messages.length > 0) {
			const { rows: [{ n }] } = await pool.query('SELECT kv_release_many($1) AS n', [receipts()]);
			log(`gave back ${n} messages`);
		}
	}
}

while (!stopping) {
	try {
		const messages = await receive();
		await (messages.length > 0 ? processAll(messages) : Promise.race([wait(), stopped]));
	} catch (error) {
		log(error.message);
		await Promise.race([sleep(1000), stopped]); // the server restarts, or there is no such queue yet
	}
}
await pool.end();
process.exit();

// Measures what README and docs claim, in one run on one machine: durable ingest beside mosquitto's with the same client,
// latency beside the price of one fdatasync, drain of a backlog, memory, start. Prints Markdown. Not a test: nothing here fails
// for being slow.     BRINK_BUILD=build node tests/bench/run.mjs [part…]   (ingest latency memory start modules routes bus)
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import { Pair, program, sasToken, until } from '../harness.mjs';

const run = promisify(execFile);
const parts = process.argv.slice(2);
const wanted = (part) => parts.length === 0 || parts.includes(part);
const clientCount = 1000;

async function registerClients(pair, count) {
    const lines = [];
    for (let i = 0; i < count; i++) {
        const id = `bench-${i}`;
        const device = await pair.addDevice(id);
        lines.push([id, `${pair.init.hub_address}/${id}/?api-version=2021-04-12`,
            sasToken(`${pair.init.hub_address}/devices/${id}`, device.primary_key, 86400)].join('\t'));
    }
    // A thousand first logins at once would be turned away in part, to come again: here they are known beforehand.
    await pair.edge.ctl('plugin', 'restart', 'identity');
    await until('the edge knows them all', async () => (await pair.edge.status()).identity?.identities >= count, 120000);
    const file = path.join(pair.dir, 'clients');
    await writeFile(file, lines.join('\n') + '\n');
    return file;
}

// A broker with the same kind of certificate, that keeps nothing and syncs nothing.
async function mosquitto(pair) {
    const address = pair.init.address.replace(/1$/, '9');
    const key = path.join(pair.dir, 'mosquitto.key');
    const cert = path.join(pair.dir, 'mosquitto.pem');
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert,
        '-days', '1', '-subj', '/CN=mosquitto', '-addext', `subjectAltName=IP:${address}`]);
    await run('chmod', ['a+r', key]);
    const conf = path.join(pair.dir, 'mosquitto.conf');
    await writeFile(conf, [`listener 8883 ${address}`, `certfile ${cert}`, `keyfile ${key}`, 'allow_anonymous true', 'persistence false',
        'max_inflight_messages 0', 'max_queued_messages 0', 'log_type error', 'user root', ''].join('\n'));
    const broker = spawn('mosquitto', ['-c', conf], { stdio: 'inherit' });
    await until('mosquitto listens', async () => {
        try {
            await run(program('brink-bench-mqtt'), ['--host', address, '--cafile', cert, '--publishers', '1', '--messages', '1', '--json']);
            return true;
        } catch {
            return false;
        }
    });
    return { address, cafile: cert, stop: () => broker.kill() };
}

async function load(target, { publishers, messages, window }) {
    const { stdout } = await run(program('brink-bench-mqtt'), ['--host', target.address, '--cafile', target.cafile, '--publishers', String(publishers),
        '--messages', String(messages), '--window', String(window), '--payload', '256', '--json',
        ...(target.clients ? ['--password-file', target.clients] : [])], { maxBuffer: 1 << 24 });
    return JSON.parse(stdout);
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const rate = (value) => `${Math.round(value).toLocaleString('en')}/s`;
const micro = (value) => `${Math.round(value)} µs`;
const depth = async (pair) => (await pair.edge.status()).queues.find((q) => q.name === '$upstream')?.depth;
const totalPss = async (pair) => {
    let kib = 0;
    const status = await pair.edge.status();
    for (const pid of [pair.edge.process.pid, ...status.plugins.map((plugin) => plugin.pid)])
        kib += Number(/^Pss:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]);
    return kib / 1024;
};

async function drained(pair) {
    await until('the queue is empty', async () => (await depth(pair)) === 0, 600000);
}

async function drain(pair, label) {
    const backlog = await depth(pair);
    const before = (await pair.hub.ctl('hub', 'stats')).telemetry.messages;
    await pair.hub.ctl('hub', 'online');
    await until('the edge is connected', async () => (await pair.edge.status()).upstream.connected === true, 120000);
    const start = process.hrtime.bigint();
    const first = (await pair.hub.ctl('hub', 'stats')).telemetry.messages;
    await until('all at the hub', async () => (await pair.hub.ctl('hub', 'stats')).telemetry.messages - before >= backlog, 600000);
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    console.log(`| drain of ${backlog.toLocaleString('en')} stored messages${label} | ${rate((backlog - (first - before)) / seconds)} |`);
    await drained(pair);
}

async function offline(pair) {
    await pair.hub.ctl('hub', 'offline');
    await until('the edge sees it', async () => (await pair.edge.status()).upstream.connected === false);
}

async function ingest(pair, edge) {
    const peer = await mosquitto(pair);
    for (const publishers of [10, 100]) {
        const shape = { publishers, messages: 200000 / publishers, window: 100 };
        const ours = [];
        const theirs = [];
        for (let round = 0; round < 3; round++) {
            await offline(pair); // ingest alone; the backlog is drained between the rounds
            ours.push(await load(edge, shape));
            theirs.push(await load(peer, shape));
            if (round === 2) await drain(pair, `, of ${publishers} senders`);
            else {
                await pair.hub.ctl('hub', 'online');
                await drained(pair);
            }
        }
        const our = median(ours.map((r) => r.rate));
        const their = median(theirs.map((r) => r.rate));
        console.log(`| durable QoS 1 ingest, 256 B, ${publishers} publishers, window 100 | ${rate(our)}, mosquitto ${rate(their)}, ratio ${(our / their).toFixed(2)} |`);
    }
    peer.stop();
}

async function latency(pair, edge) {
    await offline(pair);
    const { stdout } = await run(program('brink-bench-fsync'), [pair.dir]);
    const one = await load(edge, { publishers: 1, messages: 5000, window: 1 });
    console.log(`| PUBACK latency, 1 publisher, window 1 | p50 ${micro(one.puback_us.p50)}, p99 ${micro(one.puback_us.p99)} |`);
    console.log(`| one append and fdatasync on the same disk | ${stdout.trim().split('\n').pop()} |`);
    await pair.hub.ctl('hub', 'online');
    await drained(pair);
}

// What one module sends reaches another, over TLS and the disk.
async function modules(pair) {
    const lines = [];
    for (const name of ['sender', 'receiver']) {
        const id = `${pair.init.device_id}/${name}`;
        const added = await pair.hub.ctl('hub', 'module', 'add', pair.init.device_id, name);
        const resource = `${pair.init.hub_address}/devices/${pair.init.device_id}/modules/${name}`;
        lines.push([id, `${pair.init.hub_address}/${id}/?api-version=2021-04-12`, sasToken(resource, added.primary_key, 86400)].join('\t'));
    }
    const file = path.join(pair.dir, 'modules');
    await writeFile(file, lines.join('\n') + '\n');
    await pair.routes({
        schemaVersion: '1.1', routes: { pass: 'FROM /messages/modules/sender/outputs/out INTO BrokeredEndpoint("/modules/receiver/inputs/in")' },
        storeAndForwardConfiguration: { timeToLiveSecs: 7200 },
    });
    for (const [window, messages] of [[1, 5000], [1000, 200000]]) {
        const { stdout } = await run(program('brink-bench-modules'), ['--host', pair.init.address, '--cafile', pair.init.ca_file,
            '--credentials', file, '--messages', String(messages), '--window', String(window)]);
        const { rate: perSecond, latency_us: latencies } = JSON.parse(stdout);
        console.log(`| module to module, 256 B, ${window === 1 ? 'serial' : `${window} under way`} | ${rate(perSecond)}, p50 ${micro(latencies.p50)}, p99 ${micro(latencies.p99)} |`);
    }
}

async function memory(pair, edge) {
    console.log(`| PSS of all edge processes, idle | ${(await totalPss(pair)).toFixed(1)} MB |`);
    const idle = spawn(program('brink-bench-mqtt'), ['--host', edge.address, '--cafile', edge.cafile, '--idle', String(clientCount), '--hold',
        '--password-file', edge.clients, '--json'], { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: idle.stdout }).on('line', () => {});
    await until('all clients connected', async () => (await pair.edge.status()).clients >= clientCount, 120000);
    console.log(`| PSS of all edge processes, ${clientCount} TLS clients connected | ${(await totalPss(pair)).toFixed(1)} MB |`);
    idle.stdin.end();
    await once(idle, 'exit');
}

async function start(pair) {
    const times = [];
    for (let round = 0; round < 5; round++) {
        await pair.edge.stop();
        const begin = process.hrtime.bigint();
        pair.edge.output = '';
        pair.edge.start();
        await until('ready', () => /brinkd: ready count=/.test(pair.edge.output));
        times.push(Number(process.hrtime.bigint() - begin) / 1e6);
    }
    console.log(`| all plugins ready after the start of brinkd | ${Math.round(median(times))} ms |`);
}

const pair = await Pair.create();
try {
    const clients = await registerClients(pair, wanted('memory') ? clientCount : 100);
    const edge = { address: pair.init.address, cafile: pair.init.ca_file, clients };
    console.log(`${os.cpus().length} × ${os.cpus()[0].model}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}\n\n| what | measured |\n|---|---|`);
    if (wanted('memory')) await memory(pair, edge);
    if (wanted('start')) await start(pair);
    if (wanted('latency')) await latency(pair, edge);
    if (wanted('ingest')) await ingest(pair, edge);
    if (wanted('modules')) await modules(pair);
    if (wanted('routes')) console.log((await run(program('bench/bench-routes'))).stdout.trim().split('\n').map((line) => `| routes | ${line} |`).join('\n'));
    if (wanted('bus')) console.log((await run(program('brink-bench-bus'))).stdout.trim().split('\n').map((line) => `| bus | ${line} |`).join('\n'));
} finally {
    await pair.stop();
}

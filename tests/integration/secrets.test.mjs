// Who may be whom (identity.md T10, T11), and where keys must not be found: logs, command lines, environments, the memory of
// any process but identity's (T18).
import assert from 'node:assert/strict';
import { open, readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import mqtt from 'mqtt-packet';

import { Pair, sasToken, until } from '../harness.mjs';

const tokens = {}; // by the identity that it is for
const keys = {};
let pair;

before(async () => {
    pair = await Pair.create({ start: false });
    const file = `${pair.init.edge_config}/brink.yaml`;
    await writeFile(file, (await readFile(file, 'utf8')).replace('log_level: info', 'log_level: debug'));
    pair.hub.start();
    await pair.hub.ready();
    pair.edge.start();
    await pair.edge.ready();
    for (const id of ['leaf-a', 'leaf-b']) keys[id] = (await pair.addDevice(id)).primary_key;
    for (const [device, module] of [['edge1', 'm1'], ['edge1', 'm2'], ['leaf-a', 'm1']])
        keys[`${device}/${module}`] = (await pair.hub.ctl('hub', 'module', 'add', device, module)).primary_key;
    keys.edge1 = (await pair.hub.ctl('hub', 'device', 'show', 'edge1')).primary_key;
    for (const [id, key] of Object.entries(keys)) tokens[id] = sasToken(resource(id), key);
});
after(() => pair.stop());

const resource = (id) => `${pair.init.hub_address}/devices/${id.replace('/', '/modules/')}`;

// The code of the CONNACK.
async function connect(clientId, password, { user = clientId, more = '' } = {}) {
    const socket = tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '' });
    socket.on('error', () => {});
    socket.on('secureConnect', () => socket.write(mqtt.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 60,
        clientId, username: `${pair.init.hub_address}/${user}/?api-version=2021-04-12${more}`, password: Buffer.from(password) })));
    const answer = await new Promise((resolve, reject) => {
        socket.once('data', resolve);
        socket.once('close', () => reject(new Error('closed without an answer')));
    });
    socket.destroy();
    return answer[3];
}

test('T10: every token with every identity', async (t) => {
    for (const [owner, token] of Object.entries(tokens))
        for (const id of Object.keys(tokens)) {
            // Intended: the token of a device is good for its own modules.
            const want = id === owner || id.startsWith(`${owner}/`) ? 0 : 5;
            await t.test(`the token of ${owner} as ${id}: ${want}`, async () => assert.equal(await connect(id, token), want));
        }
});

test('T10: audience and key must both fit', async () => {
    assert.equal(await connect('leaf-a', sasToken(resource('leaf-a'), keys['leaf-b'])), 5);
    assert.equal(await connect('leaf-a', sasToken(resource('leaf-b'), keys['leaf-a'])), 5);
    assert.equal(await connect('leaf-a', sasToken(resource('leaf-a'), keys['leaf-a/m1'])), 5); // a module is not its device
    assert.equal(await connect('edge1/nobody', tokens.edge1), 5); // a module that does not exist
    assert.equal(await connect('leaf-a', tokens['leaf-a'], { user: 'leaf-b' }), 5);
    assert.equal(await connect('leaf-b', tokens['leaf-a'], { user: 'leaf-a' }), 5);
});

test('T11: a chain in the user name helps nobody', async () => {
    for (const chain of ['leaf-b;edge1', 'leaf-a;edge1', 'leaf-b;leaf-a'])
        assert.equal(await connect('leaf-b', tokens['leaf-a'], { more: `&auth-chain=${encodeURIComponent(chain)}` }), 5);
});

// Does the memory that @pid may write to hold any of these?
async function memoryHolds(pid, needles) {
    const found = new Set();
    const memory = await open(`/proc/${pid}/mem`);
    const overlap = Math.max(...needles.map(({ bytes }) => bytes.length)) - 1;
    try {
        for (const line of (await readFile(`/proc/${pid}/maps`, 'utf8')).split('\n')) {
            const [, from, to, mode] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? [];
            if (!mode?.startsWith('rw')) continue;
            const end = Number.parseInt(to, 16);
            for (let at = Number.parseInt(from, 16); at < end; at += 1 << 20) {
                const chunk = Buffer.alloc(Math.min((1 << 20) + overlap, end - at));
                const { bytesRead } = await memory.read(chunk, 0, chunk.length, at).catch(() => ({ bytesRead: 0 }));
                for (const { name, bytes } of needles) if (chunk.subarray(0, bytesRead).includes(bytes)) found.add(name);
            }
        }
    } finally {
        await memory.close();
    }
    return [...found];
}

test('T18: keys are in the memory of identity alone', { skip: process.getuid() !== 0 && 'needs root' }, async () => {
    const needles = Object.entries(keys).flatMap(([id, key]) => [
        { name: `${id}, text`, bytes: Buffer.from(key) },
        { name: id, bytes: Buffer.from(key, 'base64') },
    ]);
    const { identity, ...others } = await pair.edge.pids();
    // The search finds what is there.
    await until('identity knows all', async () => {
        const found = await memoryHolds(identity, needles);
        return Object.keys(keys).every((id) => found.includes(id));
    });
    others.brinkd = pair.edge.process.pid;
    for (const [name, pid] of Object.entries(others)) assert.deepEqual(await memoryHolds(pid, needles), [], name);
});

test('T18: neither keys nor tokens in the log, in command lines, in environments', async () => {
    const texts = { log: pair.edge.output };
    for (const [name, pid] of Object.entries(await pair.edge.pids()))
        for (const file of ['cmdline', 'environ']) texts[`${file} of ${name}`] = await readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => '');
    const secrets = [...Object.values(keys), ...Object.values(tokens).map((token) => /sig=([^&]+)/.exec(token)[1])];
    for (const [where, text] of Object.entries(texts)) {
        for (const secret of secrets) assert.ok(!text.includes(secret), `${where}: ${secret}`);
        assert.doesNotMatch(text, /sig=|SharedAccessKey=|PRIVATE KEY/, where);
    }
    assert.match(texts.log, /debug/); // it was the talkative log
});

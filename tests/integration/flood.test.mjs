// Strangers by the hundred: who is known still connects at once, whether the hub answers or hangs (identity.md T13).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import mqtt from 'mqtt-packet';

import { Pair, sasToken, until } from '../harness.mjs';

const STRANGERS = 500;
let pair;
let known;
const sockets = new Set();

before(async () => {
    pair = await Pair.create();
    known = await pair.addDevice('known');
    assert.equal((await login('known', known.primary_key)).code, 0); // from here on it is in the edge's cache
});
after(async () => {
    for (const socket of sockets) socket.destroy();
    await pair.stop();
});

function secure() {
    const socket = tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '' });
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    return new Promise((resolve, reject) => {
        socket.on('secureConnect', () => resolve(socket));
        socket.on('close', () => reject(new Error('closed during the handshake')));
    });
}

const connectPacket = (id, key) => mqtt.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 60, clientId: id,
    username: `${pair.init.hub_address}/${id}/?api-version=2021-04-12`, password: Buffer.from(sasToken(`${pair.init.hub_address}/devices/${id}`, key)) });

// The code of the CONNACK, and the time from the first byte to it.
async function login(id, key) {
    const began = performance.now();
    const socket = await secure();
    const answer = new Promise((resolve) => socket.once('data', resolve));
    socket.write(connectPacket(id, key));
    const code = (await answer)[3];
    return { code, ms: performance.now() - began, socket };
}

async function flood(name) {
    const key = Buffer.from('guessed').toString('base64');
    const all = await Promise.all(Array.from({ length: STRANGERS }, secure));
    const answers = [];
    // Every other one says who it is, the rest say nothing.
    all.forEach((socket, n) => {
        socket.on('data', (data) => answers.push(data[3]));
        if (n % 2) socket.write(connectPacket(`${name}-${n}`, key));
    });
    return answers;
}

test('500 strangers, and the hub answers', async () => {
    const answers = await flood('stranger');
    const { code, ms, socket } = await login('known', known.primary_key);
    assert.equal(code, 0);
    assert.ok(ms < 1000, `${ms} ms`);
    socket.destroy();
    await until('each stranger is answered', () => answers.length === STRANGERS / 2);
    // 5, or 3 where nobody can be asked any more for now: never in.
    assert.ok(answers.every((answer) => answer === 5 || answer === 3));
    assert.ok(answers.includes(5));
});

test('500 strangers, and the hub hangs', async () => {
    const { 'hub-emulator': emulator } = await pair.hub.pids();
    process.kill(pair.hub.process.pid, 'SIGSTOP'); // first: it would end a plugin that hangs
    process.kill(emulator, 'SIGSTOP');
    try {
        await flood('other');
        for (let n = 0; n < 3; n++) {
            const { code, ms, socket } = await login('known', known.primary_key);
            assert.equal(code, 0);
            assert.ok(ms < 1000, `${ms} ms`);
            socket.destroy();
        }
    } finally {
        process.kill(emulator, 'SIGCONT');
        process.kill(pair.hub.process.pid, 'SIGCONT');
    }
});

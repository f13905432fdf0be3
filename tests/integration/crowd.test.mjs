// Everybody comes at once, as after a power cut of the plant; and more than the front may hold.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import https from 'node:https';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import mqtt from 'mqtt-packet';

import { Pair, sasToken, until } from '../harness.mjs';

const CROWD = 1000;
const HOLDS = 50; // clients, when it may open few files
const KEY = Buffer.from('one key for all of the crowd').toString('base64');
const id = (n) => `crowd-${n}`;
let pair;

before(async () => {
    pair = await Pair.create({ start: false });
    pair.hub.start();
    await pair.hub.ready();
    await register();
    pair.edge.start();
    await pair.edge.ready();
    await until('the edge knows the last of them', async () => {
        const { code, socket } = await login(CROWD - 1);
        socket.destroy();
        return code === 0;
    });
});
after(() => pair.stop());

function post(path, body) {
    const [, key] = /SharedAccessKey=(.*)$/.exec(pair.init.hub_service_connection_string);
    const [, policy] = /SharedAccessKeyName=([^;]*)/.exec(pair.init.hub_service_connection_string);
    return new Promise((resolve, reject) => {
        const request = https.request({ host: pair.init.hub_address, path: `${path}?api-version=2021-04-12`, method: 'POST', ca: pair.ca,
            headers: { Authorization: `${sasToken(pair.init.hub_address, key)}&skn=${policy}`, 'Content-Type': 'application/json' } }, (response) => {
            let text = '';
            response.on('data', (data) => (text += data));
            response.on('end', () => (response.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(`${response.statusCode}: ${text}`))));
        });
        request.on('error', reject);
        request.end(JSON.stringify(body));
    });
}

async function register() {
    const edge = await pair.hub.ctl('hub', 'device', 'show', pair.init.device_id);
    for (let n = 0; n < CROWD; n += 100) {
        const answer = await post('/devices', Array.from({ length: 100 }, (_, i) => ({ id: id(n + i), importMode: 'create', deviceScope: edge.scope,
            authentication: { type: 'sas', symmetricKey: { primaryKey: KEY, secondaryKey: KEY } } })));
        assert.ok(answer.isSuccessful, JSON.stringify(answer));
    }
}

// Resolves with the CONNACK, however long it takes.
async function login(n) {
    const socket = tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '' });
    socket.on('error', () => {});
    socket.on('secureConnect', () => socket.write(mqtt.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 60,
        clientId: id(n), username: `${pair.init.hub_address}/${id(n)}/?api-version=2021-04-12`,
        password: Buffer.from(sasToken(`${pair.init.hub_address}/devices/${id(n)}`, KEY)) })));
    const [answer] = await once(socket, 'data');
    return { code: answer[3], socket };
}

const everybody = (count) => Array.from({ length: count }, (_, n) => n);

test('1000 clients at once: all are let in', async () => {
    const all = await Promise.all(everybody(CROWD).map(login));
    assert.ok(all.every(({ code }) => code === 0));
    assert.equal((await pair.edge.status()).clients, CROWD);
    for (const { socket } of all) socket.destroy();
    await until('all are gone', async () => (await pair.edge.status()).clients === 0);
});

// In clock ticks.
async function cpuTime(pid) {
    const fields = (await readFile(`/proc/${pid}/stat`, 'latin1')).replace(/^.*\) /, '').split(' ');
    return Number(fields[11]) + Number(fields[12]);
}

test('few open files: those who are in are served, the others wait their turn, and nothing spins', async () => {
    await pair.configure('front', (text) => `${text.replace(/^limits:.*\n/m, '')}limits: {open_files: ${2 * HOLDS + 64}}\n`);
    await pair.edge.ctl('plugin', 'restart', 'front');
    await pair.edge.ready();
    const { pid } = await pair.edge.plugin('front');
    const inside = [];
    const logins = everybody(3 * HOLDS).map((n) => login(n).then((one) => inside.push(one)));
    await until('it is full', () => inside.length === HOLDS);

    const before = await cpuTime(pid);
    const since = performance.now();
    const socket = inside[0].socket;
    for (let n = 0; n < 50; n++) { // round trips of one who is in
        socket.write(mqtt.generate({ cmd: 'pingreq' }));
        await once(socket, 'data');
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const share = (await cpuTime(pid) - before) / 100 / ((performance.now() - since) / 1000);
    assert.ok(share < 0.3, `the front uses ${share} of a processor while it is full`);
    assert.equal(inside.length, HOLDS);

    // Each who leaves makes room for one.
    for (let left = 0; left < 3 * HOLDS; left++) {
        await until('the next is let in', () => inside.length > left);
        assert.equal(inside[left].code, 0);
        inside[left].socket.destroy();
    }
    await Promise.all(logins);
});

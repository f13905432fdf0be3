// What strangers and broken clients get, and that nobody else is disturbed by them.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import common from 'azure-iot-common';
import device from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';
import mqtt from 'mqtt-packet';

import { Pair, sasToken, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

const { Client } = device;
let pair;
let monitor;
let good; // publishes all the while

before(async () => {
    pair = await Pair.create();
    monitor = pair.monitor();
    const bystander = await pair.addDevice('bystander');
    good = new Publisher({ host: pair.init.address, hub: pair.init.hub_address, deviceId: 'bystander', key: bystander.primary_key, ca: pair.ca, window: 5 }).start();
    await until('the bystander is connected', () => good.acked.size > 10);
});
after(() => pair.stop());

const secure = () => tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '' });

// Sends bytes over TLS; gives what came back until the server closed.
function exchange(...chunks) {
    return new Promise((resolve, reject) => {
        const socket = secure();
        const got = [];
        socket.setTimeout(20000, () => reject(new Error('the server neither answered nor closed')));
        socket.on('data', (data) => got.push(data));
        socket.on('error', () => {});
        socket.on('close', () => resolve(Buffer.concat(got)));
        socket.on('secureConnect', () => chunks.forEach((chunk) => socket.write(chunk)));
    });
}

function connectPacket(id, { username = `${pair.init.hub_address}/${id}/?api-version=2021-04-12`, password, clientId = id, ...more } = {}) {
    return mqtt.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 60, clientId, username,
        password: password === undefined ? undefined : Buffer.from(password), ...more });
}

const connack = (code) => Buffer.from([0x20, 2, 0, code]);
const token = (id, key, seconds) => sasToken(`${pair.init.hub_address}/devices/${id}`, key, seconds);

test('official SDK: a wrong key is UnauthorizedError, at once', async () => {
    const added = await pair.addDevice('wrong-key');
    const wrong = Buffer.from('not the key of this device').toString('base64');
    const client = Client.fromConnectionString(pair.connectionString({ ...added, connection_string: added.connection_string.replace(/SharedAccessKey=.*/, `SharedAccessKey=${wrong}`) }), Mqtt);
    await client.setOptions({ ca: pair.ca });
    client.setRetryPolicy(new common.NoRetry());
    await assert.rejects(client.open(), { name: 'UnauthorizedError' });
});

test('CONNACK 5, and the same bytes for whatever the reason', async (t) => {
    const added = await pair.addDevice('known');
    const other = await pair.addDevice('other');
    const off = await pair.addDevice('disabled');
    await pair.hub.ctl('hub', 'device', 'disable', 'disabled');
    const cases = {
        'a wrong key': connectPacket('known', { password: token('known', other.primary_key) }),
        'an expired token': connectPacket('known', { password: token('known', added.primary_key, -600) }),
        'an unknown device': connectPacket('nobody', { password: token('nobody', added.primary_key) }),
        'a disabled device': connectPacket('disabled', { password: token('disabled', off.primary_key) }),
        'a token for another device': connectPacket('known', { password: token('other', other.primary_key) }),
        'no password': connectPacket('known', {}),
        'garbage for a token': connectPacket('known', { password: 'SharedAccessSignature nothing' }),
        'client id and username differ': connectPacket('known', { clientId: 'other', password: token('known', added.primary_key) }),
        'a malformed username': connectPacket('known', { username: 'known', password: token('known', added.primary_key) }),
    };
    for (const [name, packet] of Object.entries(cases))
        await t.test(name, async () => assert.deepEqual(await exchange(packet), connack(5)));
    await t.test('the right key is let in by the secondary too', async () => {
        const socket = secure();
        const answer = new Promise((resolve) => socket.once('data', resolve));
        socket.on('secureConnect', () => socket.write(connectPacket('known', { password: token('known', added.secondary_key) })));
        assert.deepEqual(await answer, connack(0));
        socket.destroy();
    });
    await t.test('five minutes of clock skew are forgiven', async () => {
        const socket = secure();
        const answer = new Promise((resolve) => socket.once('data', resolve));
        socket.on('secureConnect', () => socket.write(connectPacket('known', { password: token('known', added.primary_key, -120) })));
        assert.deepEqual(await answer, connack(0));
        socket.destroy();
    });
});

test('another protocol level gets CONNACK 1', async () => {
    assert.deepEqual(await exchange(Buffer.from([0x10, 16, 0, 4, 0x4d, 0x51, 0x54, 0x54, 5, 2, 0, 60, 0, 0, 4, 0x61, 0x62, 0x63])), connack(1));
});

test('bytes that are no MQTT are answered by closing', async (t) => {
    for (const [name, bytes] of Object.entries({
        zeros: Buffer.alloc(100),
        ones: Buffer.alloc(100, 0xff),
        http: Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
        'a publish first': mqtt.generate({ cmd: 'publish', topic: 'devices/x/messages/events/', payload: 'x', qos: 0 }),
    }))
        await t.test(name, async () => assert.equal((await exchange(bytes)).length, 0));
});

test('after CONNECT: oversize, QoS 2, a topic of somebody else, a second CONNECT: closed without an ack', async (t) => {
    const added = await pair.addDevice('rude');
    const hello = connectPacket('rude', { password: token('rude', added.primary_key) });
    const publish = (more) => mqtt.generate({ cmd: 'publish', topic: 'devices/rude/messages/events/', payload: 'x', qos: 1, messageId: 1, ...more });
    for (const [name, packet] of Object.entries({
        'a 1 MB packet': publish({ payload: Buffer.alloc(1 << 20) }),
        'QoS 2': publish({ qos: 2 }),
        'as another device': publish({ topic: 'devices/bystander/messages/events/' }),
        'a second CONNECT': hello,
    }))
        await t.test(name, async () => assert.deepEqual(await exchange(hello, packet), connack(0)));
    assert.equal(monitor.events.filter((event) => event.device_id === 'rude').length, 0);
});

test('a plain-text client on the TLS port is cut off', async () => {
    const socket = net.connect(8883, pair.init.address);
    socket.on('error', () => {});
    socket.write(connectPacket('known', { password: 'x' }));
    let got = Buffer.alloc(0);
    socket.on('data', (data) => (got = Buffer.concat([got, data])));
    await new Promise((resolve) => socket.on('close', resolve));
    assert.ok(got.length === 0 || got[0] === 0x15, 'nothing but a TLS alert'); // never an MQTT answer
});

test('TLS 1.1 is refused', async () => {
    const socket = tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '', minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' });
    const error = await new Promise((resolve) => socket.on('error', resolve).on('secureConnect', () => resolve(undefined)));
    assert.ok(error, 'the handshake must fail');
});

test('each is logged once, without secrets, and the bystander saw none of it', async () => {
    const log = pair.edge.output;
    assert.doesNotMatch(log, /sig=|SharedAccessKey=/);
    assert.match(log, /disabled/); // says who was refused
    const connects = good.connects;
    await good.windUp();
    await monitor.until('all of the bystander', (events) => good.isComplete(events));
    assert.equal(connects, 1, 'the bystander was disconnected');
    const result = compare(good, monitor.events);
    assert.deepEqual([result.lost, result.disordered, result.unexplained], [[], [], []]);
});

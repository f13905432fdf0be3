// Many identities over one connection, as an edge does it: the hub's side of CBS and links, frame by frame.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import https from 'node:https';
import { after, before, describe, test } from 'node:test';

import iothub from 'azure-iothub';
import rhea from 'rhea';

import { Pair, bodyOf, sasToken } from '../../harness.mjs';
import { trust } from './trust.mjs';

const { Registry } = iothub;
const edgeKey = Buffer.alloc(32, 11).toString('base64');
let pair;
let hub;
let registry;
let monitor;
let edgeToken;

before(async () => {
    pair = await Pair.create({ start: false });
    hub = pair.hub.start();
    await hub.ready();
    trust(pair.ca);
    registry = Registry.fromConnectionString(pair.init.hub_service_connection_string);
    for (const moduleId of ['$edgeHub', 'cam']) {
        const sas = { type: 'sas', symmetricKey: { primaryKey: edgeKey, secondaryKey: edgeKey } };
        if (moduleId === 'cam') await registry.addModule({ deviceId: 'edge1', moduleId, authentication: sas });
        else await registry.updateModule({ ...(await registry.getModule('edge1', moduleId)).responseBody, authentication: sas });
    }
    edgeToken = token('edge1/modules/$edgeHub');
    for (const id of ['leaf1', 'leaf2']) await hub.ctl('hub', 'device', 'add', id, '--parent', 'edge1');
    await hub.ctl('hub', 'device', 'add', 'stranger');
    monitor = pair.monitor();
});
after(async () => {
    for (const connection of connections) connection.close();
    await pair.stop();
});

const connections = [];
const token = (id) => sasToken(`${pair.init.hub_address}/devices/${id}`, edgeKey);
const name = (id) => `${pair.init.hub_address}/devices/${id}`;

// A connection with its $cbs pair; `seen` is the order in which things came in.
class Wire {
    static async open() {
        const wire = new Wire();
        const container = rhea.create_container({ sender_options: { autosettle: true } });
        wire.connection = container.connect({
            host: pair.init.hub_address, port: 5671, transport: 'tls', ca: pair.ca, reconnect: false, servername: '',
        });
        connections.push(wire.connection);
        wire.connection.on('disconnected', () => { });
        await once(wire.connection, 'connection_open');
        wire.seen = [];
        wire.cbs = wire.connection.open_sender({ target: { address: '$cbs' } });
        wire.answers = wire.connection.open_receiver({ source: { address: '$cbs' }, credit_window: 100 });
        wire.cbs.on('accepted', () => wire.seen.push('disposition'));
        wire.answers.on('message', () => wire.seen.push('answer'));
        await Promise.all([once(wire.cbs, 'sendable'), once(wire.answers, 'receiver_open')]);
        return wire;
    }

    async putToken(text, audience, id = rhea.generate_uuid()) {
        this.cbs.send({
            message_id: id, to: '$cbs', reply_to: 'cbs',
            application_properties: { operation: 'put-token', type: 'servicebus.windows.net:sastoken', name: audience },
            body: text,
        });
        const [{ message }] = await once(this.answers, 'message');
        return { status: message.application_properties['status-code'], id: message.correlation_id,
            text: message.application_properties['status-description'] };
    }

    // Resolves with the sender when it may send, or with the error it was detached with.
    async sender(address, chain) {
        const sender = this.connection.open_sender({
            target: { address }, properties: chain ? { 'com.microsoft:auth-chain': chain } : undefined,
        });
        sender.on('sender_error', () => { });
        const error = once(sender, 'sender_close').then(() => ({ condition: sender.error?.condition }));
        return Promise.race([once(sender, 'sendable').then(() => sender), error]);
    }

    async send(sender, message, format) {
        const outcome = Promise.race(['accepted', 'rejected'].map(async (event) => {
            const [context] = await once(sender, event);
            return event === 'accepted' ? event : context.delivery.remote_state.error.condition;
        }));
        sender.send(message, undefined, format);
        return outcome;
    }
}

const events = (id) => `/devices/${id}/messages/events`;
const of = (device, module) => (event) => event.device_id === device && (event.module_id ?? undefined) === module;
const arrived = async (count, device, module) =>
    (await monitor.until(`${count} of ${device}`, (all) => all.filter(of(device, module)).length >= count)).filter(of(device, module));

describe('put-token', () => {
    test('is settled before it is answered, under its own id', async () => {
        const wire = await Wire.open();
        for (const id of ['plain text', '0b9c1bcb-0fdd-4a3c-9f3e-6c1f2a3b4c5d', 7]) {
            wire.seen.length = 0;
            const answer = await wire.putToken(edgeToken, name('leaf1'), id);
            assert.equal(answer.status, 200);
            assert.equal(answer.id, id);
            assert.deepEqual(wire.seen, ['disposition', 'answer']);
        }
    });

    test('of an edge is good for what is in its scope, and for nothing else', async () => {
        const wire = await Wire.open();
        const cases = [
            [edgeToken, name('leaf1'), 200],
            [edgeToken, name('edge1/modules/cam'), 200],
            [edgeToken, name('edge1/modules/%24edgeHub'), 200],
            [edgeToken, name('stranger'), 401],
            [edgeToken, name('nobody'), 404],
            [token('edge1/modules/cam'), name('leaf1'), 200], // its own: the name is free text then
            [token('leaf1'), name('leaf1'), 401], // the wrong key
            [sasToken(name('edge1/modules/$edgeHub'), edgeKey, -600), name('leaf1'), 401],
            ['nonsense', name('leaf1'), 400],
        ];
        for (const [text, audience, status] of cases) {
            assert.equal((await wire.putToken(text, audience)).status, status, audience);
        }
    });

    test('is limited to 1000 on a connection', async () => {
        for (let first = 0; first < 1000; first += 100) {
            await registry.addDevices(Array.from({ length: 100 }, (_, n) => ({ deviceId: `many-${first + n}`, deviceScope: undefined })));
        }
        const scope = (await registry.get('edge1')).responseBody.deviceScope;
        for (let first = 0; first < 1000; first += 100) {
            await registry.updateDevices(Array.from({ length: 100 }, (_, n) => ({ deviceId: `many-${first + n}`, deviceScope: scope })), true);
        }
        const wire = await Wire.open();
        for (let n = 0; n < 1000; n++) assert.equal((await wire.putToken(edgeToken, name(`many-${n}`))).status, 200);
        assert.equal((await wire.putToken(edgeToken, name('leaf1'))).status, 500);
        assert.equal((await wire.putToken(edgeToken, name('many-7'))).status, 200); // a renewal is no further one
    });
});

describe('links', () => {
    test('of several identities share a connection, each with its own name on what it sends', async () => {
        const wire = await Wire.open();
        await wire.putToken(edgeToken, name('leaf1'));
        await wire.putToken(edgeToken, name('edge1/modules/cam'));
        const leaf = await wire.sender(events('leaf1'), 'leaf1;edge1');
        const module = await wire.sender(`amqps://${pair.init.hub_address}:5671/devices/edge1/modules/cam/messages/events`, 'edge1/cam;edge1');
        assert.equal(await wire.send(leaf, { body: rhea.message.data_section(Buffer.from('from the leaf')) }), 'accepted');
        assert.equal(await wire.send(module, { body: rhea.message.data_section(Buffer.from('from the module')) }), 'accepted');
        const [first] = await arrived(1, 'leaf1');
        assert.equal(bodyOf(first), 'from the leaf');
        const [second] = await arrived(1, 'edge1', 'cam');
        assert.equal(bodyOf(second), 'from the module');
    });

    test('without a token, out of scope, or with a wrong chain are refused as the hub does', async () => {
        const wire = await Wire.open();
        const unauthorized = { condition: 'amqp:unauthorized-access' };
        assert.deepEqual(await wire.sender(events('leaf1')), unauthorized);
        await wire.putToken(edgeToken, name('leaf1'));
        await wire.putToken(edgeToken, name('stranger'));
        assert.deepEqual(await wire.sender(events('stranger')), unauthorized);
        assert.deepEqual(await wire.sender(events('leaf1'), 'leaf2;edge1'), unauthorized);
        assert.deepEqual(await wire.sender(events('leaf1'), 'leaf1;stranger'), unauthorized);
        assert.deepEqual(await wire.sender(events('nobody')), { condition: 'amqp:not-found' });
        assert.deepEqual(await wire.sender('/devices/leaf1/elsewhere'), { condition: 'amqp:not-found' });
        assert.deepEqual(await wire.sender('/devices/leaf1/messages/deviceBound'), { condition: 'amqp:not-allowed' });
        assert.ok((await wire.sender(events('leaf1'))).send, 'the connection lives on');
    });

    test('of a kind there is one for an identity: the newest', async () => {
        const wire = await Wire.open();
        await wire.putToken(edgeToken, name('leaf2'));
        const older = await wire.sender(events('leaf2'));
        const stolen = once(older, 'sender_close');
        const newer = await wire.sender(events('leaf2'));
        await stolen;
        assert.equal(older.error.condition, 'amqp:link:stolen');
        assert.equal(await wire.send(newer, { body: 'x' }), 'accepted');
    });

    test('of a leaf that leaves the scope are detached, and its neighbour\'s are not', async () => {
        const wire = await Wire.open();
        await hub.ctl('hub', 'device', 'add', 'mover', '--parent', 'edge1');
        for (const id of ['mover', 'leaf1']) await wire.putToken(edgeToken, name(id));
        const mover = await wire.sender(events('mover'));
        const leaf = await wire.sender(events('leaf1'));
        const gone = once(mover, 'sender_close');
        await registry.update({ ...(await registry.get('mover')).responseBody, deviceScope: '', parentScopes: [] });
        await gone;
        assert.equal(mover.error.condition, 'amqp:unauthorized-access');
        assert.equal(await wire.send(leaf, { body: 'still here' }), 'accepted');
    });
});

describe('telemetry', () => {
    let wire;
    let sender;
    const data = (text) => rhea.message.encode({ body: rhea.message.data_section(Buffer.from(text)) });

    before(async () => {
        await hub.ctl('hub', 'device', 'add', 'batcher', '--parent', 'edge1');
        wire = await Wire.open();
        await wire.putToken(edgeToken, name('batcher'));
        sender = await wire.sender(events('batcher'));
    });

    test('in a batch is unpacked, as the C SDK sends even one', async () => {
        const inner = ['a', 'b', 'c'].map((text) => rhea.message.encode({
            application_properties: { k: text }, body: rhea.message.data_section(Buffer.from(text)),
        }));
        const batch = rhea.message.encode({ body: rhea.message.data_sections(inner) });
        assert.equal(await wire.send(sender, batch, 0x80013700), 'accepted');
        const got = await arrived(3, 'batcher');
        assert.deepEqual(got.map(bodyOf), ['a', 'b', 'c']);
        assert.deepEqual(got.map((event) => event.application_properties), [{ k: 'a' }, { k: 'b' }, { k: 'c' }]);
    });

    test('that cannot be decoded or is too large is rejected, and the link lives on', async () => {
        const large = data('x'.repeat(262145));
        assert.equal(await wire.send(sender, Buffer.from('no message'), 0), 'com.microsoft:argument-error');
        assert.equal(await wire.send(sender, large, 0), 'amqp:link:message-size-exceeded');
        const mixed = rhea.message.encode({ body: rhea.message.data_sections([data('fine'), Buffer.from('garbage')]) });
        assert.equal(await wire.send(sender, mixed, 0x80013700), 'com.microsoft:argument-error');
        const heavy = rhea.message.encode({ body: rhea.message.data_sections([1, 2, 3].map(() => data('y'.repeat(250000)))) });
        assert.equal(await wire.send(sender, heavy, 0x80013700), 'amqp:link:message-size-exceeded');
        assert.equal(await wire.send(sender, data('after'), 0), 'accepted');
        assert.deepEqual((await arrived(4, 'batcher')).map(bodyOf), ['a', 'b', 'c', 'after']);
    });

    test('larger than a transfer may be costs the link, not the connection', async () => {
        const closed = once(sender, 'sender_close');
        sender.send(data('z'.repeat((1 << 20) + 100)), undefined, 0);
        await closed;
        assert.equal(sender.error.condition, 'amqp:link:message-size-exceeded');
        sender = await wire.sender(events('batcher'));
        assert.equal(await wire.send(sender, data('again'), 0), 'accepted');
    });

    test('numbers and booleans among properties become text', async () => {
        const message = { application_properties: { n: 7, yes: true, text: 't' }, body: rhea.message.data_section(Buffer.from('typed')) };
        assert.equal(await wire.send(sender, message), 'accepted');
        const typed = (await monitor.until('typed', (all) => all.some((event) => event.body === 'typed'))).find((event) => event.body === 'typed');
        assert.deepEqual(typed.application_properties, { n: '7', yes: 'true', text: 't' });
    });
});

test('twin requests are answered 503 with an error in JSON', async () => {
    const wire = await Wire.open();
    await wire.putToken(edgeToken, name('leaf1'));
    const receiver = wire.connection.open_receiver({ source: { address: '/devices/leaf1/twin' } });
    await once(receiver, 'receiver_open');
    const sender = await wire.sender('/devices/leaf1/twin');
    const answer = once(receiver, 'message');
    sender.send({ correlation_id: 'Get-1', message_annotations: { operation: 'GET' }, body: rhea.message.data_section(Buffer.from(' ')) });
    const [{ message }] = await answer;
    assert.equal(message.correlation_id, 'Get-1');
    assert.equal(message.message_annotations.status, 503);
    assert.equal(JSON.parse(message.body.content).errorCode, 503001);
});

test('garbage on the port ends that connection and no other', async () => {
    const wire = await Wire.open();
    const tls = (await import('node:tls')).connect({ host: pair.init.hub_address, port: 5671, ca: pair.ca });
    await once(tls, 'secureConnect');
    tls.on('error', () => { });
    const ended = once(tls, 'close');
    tls.resume();
    tls.write('GET / HTTP/1.1\r\n\r\n');
    await ended;
    assert.equal((await wire.putToken(edgeToken, name('leaf1'))).status, 200);
});

test('offline resets HTTPS connections too', async () => {
    const agent = new https.Agent({ keepAlive: true });
    const get = () => new Promise((resolve, reject) => https.get({ host: pair.init.hub_address, path: '/devices', agent },
        (response) => response.resume().on('end', () => resolve(response.statusCode))).on('error', reject));
    assert.equal(await get(), 401);
    const [socket] = Object.values(agent.freeSockets)[0];
    const cut = once(socket, 'error');
    await hub.ctl('hub', 'offline');
    assert.equal((await cut)[0].code, 'ECONNRESET');
    await assert.rejects(get(), (error) => ['ECONNRESET', 'EPIPE'].includes(error.code));
    await hub.ctl('hub', 'online');
    assert.equal(await get(), 401);
    agent.destroy();
});

// Devices and modules that connect to the hub itself, with the official SDK over AMQP: no dialect of our own.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import common from 'azure-iot-common';
import device from 'azure-iot-device';
import { Amqp } from 'azure-iot-device-amqp';

import { Pair, bodyOf, sasToken, until } from '../../harness.mjs';

const { Client, Message, ModuleClient } = device;
let pair;
let hub;
let monitor;

before(async () => {
    pair = await Pair.create({ start: false });
    hub = pair.hub.start();
    await hub.ready();
    monitor = pair.monitor();
});
after(async () => {
    await Promise.allSettled(clients.map((client) => client.close()));
    await pair.stop();
});

const clients = []; // one that is left open would go on trying

async function connect(Kind, connectionString) {
    const client = Kind.fromConnectionString(connectionString, Amqp);
    clients.push(client);
    client.on('error', () => { });
    await client.setOptions({ ca: pair.ca });
    await client.open();
    return client;
}

const named = (name) => (error) => error.name === name || assert.fail(`expected ${name}, found ${error.name}: ${error.message}`);
const from = (deviceId, moduleId) => (event) => event.device_id === deviceId && (event.module_id ?? undefined) === moduleId;
const arrived = async (deviceId, count, moduleId) =>
    (await monitor.until(`${count} of ${deviceId}`, (all) => all.filter(from(deviceId, moduleId)).length >= count)).filter(from(deviceId, moduleId));
const addDevice = (id, ...options) => hub.ctl('hub', 'device', 'add', id, ...options);

describe('telemetry', () => {
    test('of a device arrives in order with body and properties', async () => {
        const client = await connect(Client, (await addDevice('dev-1')).connection_string);
        const sent = [];
        for (let n = 0; n < 200; n++) {
            const message = new Message(JSON.stringify({ n, text: 'grün' }));
            message.messageId = n === 0 ? '0b9c1bcb-0fdd-4a3c-9f3e-6c1f2a3b4c5d' : `m-${n}`;
            message.correlationId = 'c/1';
            message.contentType = 'application/json';
            message.contentEncoding = 'utf-8';
            message.properties.add('level', n % 2 ? 'high' : 'low');
            message.properties.add('ünï', 'a=b&c');
            sent.push(client.sendEvent(message));
        }
        await Promise.all(sent);
        const events = await arrived('dev-1', 200);
        events.forEach((event, n) => {
            assert.deepEqual(JSON.parse(bodyOf(event)), { n, text: 'grün' });
            assert.deepEqual(event.application_properties, { level: n % 2 ? 'high' : 'low', 'ünï': 'a=b&c' });
        });
        const system = events[0].system_properties;
        assert.equal(system['message-id'], '0b9c1bcb-0fdd-4a3c-9f3e-6c1f2a3b4c5d');
        assert.equal(system['correlation-id'], 'c/1');
        assert.equal(system['content-type'], 'application/json');
        assert.equal(system['content-encoding'], 'utf-8');
        assert.equal(system['iothub-connection-device-id'], 'dev-1');
        assert.equal(system['iothub-connection-module-id'], undefined);
        assert.deepEqual(JSON.parse(system['iothub-connection-auth-method']), { scope: 'device', type: 'sas', issuer: 'iothub' });
        assert.match(system['iothub-connection-auth-generation-id'], /^\d+$/);
        assert.equal(system['iothub-message-source'], 'Telemetry');
        assert.ok(Math.abs(Date.parse(event0Time(events)) - Date.now()) < 60000);
        assert.equal((await hub.ctl('hub', 'device', 'show', 'dev-1')).connected, true);
        await client.close();
        await until('dev-1 disconnected', async () => !(await hub.ctl('hub', 'device', 'show', 'dev-1')).connected);
    });
    const event0Time = (events) => events[0].enqueued_time;

    test('of a module is the module\'s', async () => {
        await addDevice('dev-2');
        const module = await hub.ctl('hub', 'module', 'add', 'dev-2', 'cam');
        const client = await connect(ModuleClient, module.connection_string);
        await client.sendEvent(new Message('of a module'));
        await client.close();
        const [event] = await arrived('dev-2', 1, 'cam');
        assert.equal(bodyOf(event), 'of a module');
        assert.equal(event.system_properties['iothub-connection-module-id'], 'cam');
        assert.equal(JSON.parse(event.system_properties['iothub-connection-auth-method']).scope, 'module');
    });

    test('that is no text is shown in base64', async () => {
        const client = await connect(Client, (await addDevice('binary')).connection_string);
        const bytes = Buffer.from([0, 255, 128, 10]);
        await client.sendEvent(new Message(bytes));
        await client.close();
        const [event] = await arrived('binary', 1);
        assert.equal(event.body, undefined);
        assert.deepEqual(Buffer.from(event.body_base64, 'base64'), bytes);
    });

    test('of an id with every odd character arrives', async () => {
        const id = "o-:.+%_#*?!(),=@$'d";
        const client = await connect(Client, (await addDevice(id)).connection_string);
        await client.sendEvent(new Message('odd'));
        await client.close();
        assert.equal(bodyOf((await arrived(id, 1))[0]), 'odd');
    });

    test('up to the hub\'s limit is taken, beyond it is refused, and the link lives on', async () => {
        const client = await connect(Client, (await addDevice('large')).connection_string);
        const room = 262144 - '/devices/large/messages/events'.length; // the SDK sends its link's address as `to`, and that counts
        await client.sendEvent(new Message(Buffer.alloc(room, 'x')));
        await assert.rejects(client.sendEvent(new Message(Buffer.alloc(room + 1, 'y'))), named('MessageTooLargeError'));
        await client.sendEvent(new Message('small'));
        await client.close();
        const events = await arrived('large', 2);
        assert.deepEqual(events.map((event) => bodyOf(event).length), [room, 5]);
    });
});

describe('who may not connect is told so:', () => {
    const wrongKey = (text) => text.replace(/SharedAccessKey=.*/, `SharedAccessKey=${Buffer.alloc(32, 5).toString('base64')}`);

    test('a wrong key', async () => {
        const { connection_string } = await addDevice('wrong-key');
        await assert.rejects(connect(Client, wrongKey(connection_string)), named('UnauthorizedError'));
    });

    test('a device that is not registered', async () => {
        const text = `HostName=${pair.init.hub_address};DeviceId=nobody;SharedAccessKey=${Buffer.alloc(32, 5).toString('base64')}`;
        await assert.rejects(connect(Client, text), named('UnauthorizedError'));
    });

    test('a disabled device, and not again when it is enabled', async () => {
        const { connection_string } = await addDevice('off');
        await hub.ctl('hub', 'device', 'disable', 'off');
        await assert.rejects(connect(Client, connection_string), named('UnauthorizedError'));
        await hub.ctl('hub', 'device', 'enable', 'off');
        const client = await connect(Client, connection_string);
        await client.sendEvent(new Message('back'));
        await client.close();
    });

    test('an expired token', async () => {
        const { primary_key } = await addDevice('late');
        const token = sasToken(`${pair.init.hub_address}/devices/late`, primary_key, -600);
        const client = Client.fromSharedAccessSignature(token, Amqp);
        await client.setOptions({ ca: pair.ca });
        await assert.rejects(client.open(), named('UnauthorizedError'));
    });

    test('a module with the token of its device', async () => {
        const { primary_key } = await addDevice('gw');
        await hub.ctl('hub', 'module', 'add', 'gw', 'm');
        const text = `HostName=${pair.init.hub_address};DeviceId=gw;ModuleId=m;SharedAccessKey=${primary_key}`;
        await assert.rejects(connect(ModuleClient, text), named('UnauthorizedError'));
    });
});

test('a token is renewed on the open connection', async () => {
    const { primary_key } = await addDevice('renew');
    const token = () => sasToken(`${pair.init.hub_address}/devices/renew`, primary_key, 600);
    const client = Client.fromSharedAccessSignature(token(), Amqp);
    await client.setOptions({ ca: pair.ca });
    await client.open();
    await client.sendEvent(new Message('first'));
    const before = (await hub.ctl('hub', 'stats')).connections_total;
    await client.updateSharedAccessSignature(token());
    await client.sendEvent(new Message('second'));
    assert.equal((await hub.ctl('hub', 'stats')).connections_total, before);
    await client.close();
    assert.deepEqual((await arrived('renew', 2)).map(bodyOf), ['first', 'second']);
});

test('a device that is disabled while it is connected loses its link', async () => {
    const { connection_string } = await addDevice('caught');
    const client = await connect(Client, connection_string);
    await client.sendEvent(new Message('before'));
    await hub.ctl('hub', 'device', 'disable', 'caught');
    await until('caught detached', async () => !(await hub.ctl('hub', 'device', 'show', 'caught')).connected);
    await assert.rejects(client.sendEvent(new Message('after')));
});

test('of two connections of a device the newer one has it', async () => {
    const { connection_string } = await addDevice('twice');
    const older = await connect(Client, connection_string);
    older.setRetryPolicy(new common.NoRetry());
    await older.sendEvent(new Message('older'));
    const gone = once(older, 'disconnect');
    const newer = await connect(Client, connection_string);
    await newer.sendEvent(new Message('newer'));
    await gone;
    await newer.sendEvent(new Message('newer still'));
    assert.deepEqual((await arrived('twice', 3)).map(bodyOf), ['older', 'newer', 'newer still']);
    await newer.close();
});

test('what else an SDK opens does not fail: C2D, methods; a twin is answered', async () => {
    const client = await connect(Client, (await addDevice('curious')).connection_string);
    client.on('message', () => { });
    client.onDeviceMethod('m', () => { });
    client.setRetryPolicy(new common.NoRetry());
    await client.sendEvent(new Message('works'));
    await assert.rejects(client.getTwin());
    await client.close();
});

test('offline cuts what is open and refuses what comes; online takes it again', async () => {
    const { connection_string } = await addDevice('patient');
    const client = await connect(Client, connection_string);
    await client.sendEvent(new Message('before'));
    await hub.ctl('hub', 'offline');
    assert.equal((await hub.ctl('hub', 'stats')).connections, 0);
    const late = client.sendEvent(new Message('while offline')); // the SDK retries by itself
    await hub.ctl('hub', 'online');
    await late;
    await client.close();
    assert.deepEqual((await arrived('patient', 2)).map(bodyOf), ['before', 'while offline']);
});

test('the counters add up', async () => {
    const stats = await hub.ctl('hub', 'stats');
    assert.equal(stats.devices['dev-1'], 200);
    assert.equal(stats.devices['dev-2/cam'], 1);
    assert.equal(stats.telemetry.messages, Object.values(stats.devices).reduce((a, b) => a + b, 0));
    assert.ok(stats.bytes_in > 262144 && stats.bytes_out > 0);
});

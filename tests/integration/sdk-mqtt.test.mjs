// The main job with the official SDK, unmodified: azure-iot-device over azure-iot-device-mqtt, through the gateway.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import common from 'azure-iot-common';
import device from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';

import { Pair, bodyOf, until } from '../harness.mjs';

const { Client, Message, ModuleClient } = device;
let pair;
let monitor;

before(async () => {
    pair = await Pair.create();
    monitor = pair.monitor();
});
after(() => pair.stop());

async function connect(Kind, connectionString) {
    const client = Kind.fromConnectionString(connectionString, Mqtt);
    await client.setOptions({ ca: pair.ca });
    await client.open();
    return client;
}

const from = (deviceId, moduleId = '') => (event) => event.device_id === deviceId && (event.module_id ?? '') === moduleId;

test('a device: body, order, properties and content type arrive as sent', async () => {
    const client = await connect(Client, pair.connectionString(await pair.addDevice('leaf-1')));
    for (let n = 0; n < 50; n++) {
        const message = new Message(JSON.stringify({ n, text: 'grün & <süß>' }));
        message.messageId = `m-${n}`;
        message.correlationId = 'c/1';
        message.contentType = 'application/json';
        message.contentEncoding = 'utf-8';
        message.properties.add('level', n % 2 ? 'high' : 'low');
        message.properties.add('a b/c&d=e', 'ü?#+%');
        message.properties.add('empty', '');
        await client.sendEvent(message);
    }
    await client.close();
    const events = (await monitor.until('50 of leaf-1', (all) => all.filter(from('leaf-1')).length >= 50)).filter(from('leaf-1'));
    assert.equal(events.length, 50);
    events.forEach((event, n) => {
        assert.deepEqual(JSON.parse(bodyOf(event)), { n, text: 'grün & <süß>' });
        assert.deepEqual(event.application_properties, { level: n % 2 ? 'high' : 'low', 'a b/c&d=e': 'ü?#+%', empty: '' });
        const system = event.system_properties;
        assert.equal(system['message-id'], `m-${n}`);
        assert.equal(system['correlation-id'], 'c/1');
        assert.equal(system['content-type'], 'application/json');
        assert.equal(system['content-encoding'], 'utf-8');
        assert.equal(system['iothub-connection-device-id'], 'leaf-1');
        assert.equal(system['iothub-connection-module-id'], undefined);
        assert.equal(JSON.parse(system['iothub-connection-auth-method']).scope, 'device');
        assert.match(String(system['iothub-connection-auth-generation-id']), /^\d+$/);
        assert.ok(system['iothub-enqueuedtime']);
    });
});

test('a module of the edge device, with an output', async () => {
    const module = await pair.hub.ctl('hub', 'module', 'add', 'edge1', 'sensor');
    const client = await connect(ModuleClient, pair.connectionString(module));
    await client.sendEvent(new Message('plain'));
    await client.sendOutputEvent('out1', new Message(Buffer.from([0, 255, 1])));
    await client.close();
    const events = (await monitor.until('two of the module', (all) => all.filter(from('edge1', 'sensor')).length >= 2)).filter(from('edge1', 'sensor'));
    assert.equal(events.length, 2);
    assert.equal(bodyOf(events[0]), 'plain');
    assert.deepEqual([...Buffer.from(events[1].body_base64, 'base64')], [0, 255, 1]);
    for (const event of events) {
        assert.equal(event.system_properties['iothub-connection-device-id'], 'edge1');
        assert.equal(event.system_properties['iothub-connection-module-id'], 'sensor');
        assert.equal(JSON.parse(event.system_properties['iothub-connection-auth-method']).scope, 'module');
        assert.deepEqual(event.application_properties, {}); // the output name is the edge's business
    }
});

test('the hub is cut for a while: the device notices nothing, all arrives after, in order, once', async () => {
    const client = await connect(Client, pair.connectionString(await pair.addDevice('leaf-2')));
    let disconnects = 0;
    client.on('disconnect', () => disconnects++);
    const send = (n) => client.sendEvent(new Message(String(n)));
    for (let n = 0; n < 20; n++) await send(n);
    await pair.hub.ctl('hub', 'offline');
    await until('the edge sees it', async () => (await pair.edge.status()).upstream.connected === false);
    for (let n = 20; n < 220; n++) await send(n);
    const queue = (await pair.edge.status()).queues.find((q) => q.name === '$upstream');
    assert.ok(queue.depth >= 200, `depth ${queue.depth}`);
    await pair.hub.ctl('hub', 'online');
    await monitor.until('220 of leaf-2', (all) => all.filter(from('leaf-2')).length >= 220);
    await until('nothing left', async () => (await pair.edge.status()).queues.find((q) => q.name === '$upstream').depth === 0);
    const numbers = monitor.events.filter(from('leaf-2')).map((event) => Number(bodyOf(event)));
    // What was in flight and not settled when the hub was cut may come twice; nothing else may.
    const seen = [...new Set(numbers)];
    assert.deepEqual(seen, Array.from({ length: 220 }, (_, n) => n));
    assert.ok(numbers.length === 220, `${numbers.length - 220} repeated: all 20 were settled before the cut`);
    assert.equal(disconnects, 0);
    await client.close();
});

test('a second connection of an identity takes over from the first', async () => {
    const credentials = pair.connectionString(await pair.addDevice('leaf-3'));
    const first = await connect(Client, credentials);
    await first.sendEvent(new Message('first'));
    first.setRetryPolicy(new common.NoRetry());
    const second = await connect(Client, credentials);
    await second.sendEvent(new Message('second'));
    await until('one client of leaf-3', async () => (await pair.edge.ctl('clients')).filter((client) => client.device_id === 'leaf-3').length === 1);
    await second.sendEvent(new Message('third')); // the old connection's end did not end the new one
    await second.close();
    await first.close().catch(() => {});
    await monitor.until('three of leaf-3', (all) => all.filter(from('leaf-3')).length >= 3);
});

test('twins are not served yet: a clear error, not silence', async () => {
    const client = await connect(Client, pair.connectionString(await pair.addDevice('leaf-4')));
    client.setRetryPolicy(new common.NoRetry());
    await assert.rejects(client.getTwin());
    await client.close();
});

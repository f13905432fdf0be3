// Modules among themselves, with the official SDK: outputs, routes, inputs.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';

import device from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';

import { Pair, balance, bodyOf, until } from '../harness.mjs';

const { Client, Message, ModuleClient } = device;
let pair;
let monitor;

const ROUTES = {
    schemaVersion: '1.1',
    routes: {
        hot: 'FROM /messages/modules/sensor/outputs/out1 WHERE as_number(temperature) > 20 INTO BrokeredEndpoint("/modules/filter/inputs/in1")',
        all: 'FROM /messages/modules/sensor/* INTO BrokeredEndpoint("/modules/filter/inputs/in2")',
        odd: { route: 'FROM /messages/modules/sensor/outputs/out1 WHERE $body.n = 3 INTO BrokeredEndpoint("/modules/archive/inputs/in1")', priority: 1 },
        leaf: 'FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint("/modules/filter/inputs/leaf")',
        up: 'FROM /messages/modules/filter/outputs/* INTO $upstream',
    },
    storeAndForwardConfiguration: { timeToLiveSecs: 7200 },
};

before(async () => {
    pair = await Pair.create();
    monitor = pair.monitor();
    await pair.routes(ROUTES);
});
after(() => pair.stop());

async function connect(Kind, identity, prepare = () => {}) {
    const client = Kind.fromConnectionString(pair.connectionString(identity), Mqtt);
    await client.setOptions({ ca: pair.ca });
    prepare(client);
    await client.open();
    return client;
}

// Before it connects: it has subscribed once, so what waits comes at once, and the SDK acknowledges what nobody listens to.
function listen(client) {
    client.received = [];
    client.on('inputMessage', (input, message) => {
        client.received.push({ input, message, body: message.data.toString() });
        client.complete(message, () => client.emit('got'));
    });
    return client;
}

// A module; it is registered once.
const identities = new Map();
async function module(name, { deviceId = 'edge1', prepare = listen } = {}) {
    const key = `${deviceId}/${name}`;
    if (!identities.has(key)) identities.set(key, await pair.hub.ctl('hub', 'module', 'add', deviceId, name));
    return connect(ModuleClient, identities.get(key), prepare);
}
const deaf = { prepare: () => {} };

async function got(client, count) {
    while (client.received.length < count) await once(client, 'got', { signal: AbortSignal.timeout(20000) });
    return client.received;
}

const queue = async (name) => (await pair.edge.ctl('queues')).find((q) => q.name === name);
const drained = (name) => until(`${name} is empty`, async () => (await queue(name))?.depth === 0);

function reading(n, temperature) {
    const message = new Message(JSON.stringify({ n }));
    message.messageId = `m ${n}`;
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    message.properties.add('temperature', String(temperature));
    message.properties.add('a b/c', 'x=y&z');
    return message;
}

let sensor;

test('an output goes to the inputs that routes name, one copy each, with all its properties', async () => {
    sensor = await module('sensor', deaf);
    const filter = await module('filter');
    for (let n = 1; n <= 3; n++) await sensor.sendOutputEvent('out1', reading(n, n * 10));
    await sensor.sendEvent(reading(4, 99)); // no output: only `all` wants it
    await got(filter, 5);
    const of = (input) => filter.received.filter((entry) => entry.input === input);
    assert.deepEqual(of('in1').map((entry) => entry.body), ['{"n":3}']);
    assert.deepEqual(of('in2').map((entry) => entry.body), ['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}']);
    const { message } = of('in1')[0];
    assert.equal(message.messageId, 'm 3');
    assert.equal(message.contentType, 'application/json');
    assert.equal(message.contentEncoding, 'utf-8');
    assert.equal(message.properties.getValue('temperature'), '30');
    assert.equal(message.properties.getValue('a b/c'), 'x=y&z');
    assert.equal(message.properties.getValue('$.cdid'), 'edge1');
    assert.equal(message.properties.getValue('$.cmid'), 'sensor');
    await drained('modules/filter/inputs/in2');
    const { accepted, delivered } = await queue('modules/filter/inputs/in2');
    assert.deepEqual({ accepted, delivered }, { accepted: 4, delivered: 4 });

    await filter.sendOutputEvent('out', new Message('from the filter'));
    await monitor.until('what the filter says', (events) => events.some((event) => event.module_id === 'filter' && bodyOf(event) === 'from the filter'));
    await filter.close();
});

test('what comes while a module is away waits for it, whenever it subscribes', async () => {
    const archive = await module('archive', deaf);
    assert.equal((await queue('modules/archive/inputs/in1')).depth, 1); // {"n":3} of before
    await sensor.sendOutputEvent('out1', reading(3, 0));
    listen(archive);
    await got(archive, 2);
    assert.deepEqual(archive.received.map((entry) => entry.message.properties.getValue('temperature')), ['30', '0']);
    await archive.close();
    await sensor.sendOutputEvent('out1', reading(3, 1));
    const again = await module('archive');
    await got(again, 1);
    assert.equal(again.received[0].message.properties.getValue('temperature'), '1');
    await drained('modules/archive/inputs/in1');
    await again.close();
});

test('a leaf device to a module', async () => {
    const filter = await module('filter');
    const leaf = await connect(Client, await pair.addDevice('leaf'));
    await leaf.sendEvent(new Message('from a leaf'));
    const entry = await until('it came', () => filter.received.find(({ input }) => input === 'leaf'));
    assert.equal(entry.body, 'from a leaf');
    assert.equal(entry.message.properties.getValue('$.cdid'), 'leaf');
    assert.equal(entry.message.properties.getValue('$.cmid'), undefined);
    await leaf.close();
    await filter.close();
});

test('a message lives as long as its route says, also while nobody runs', async () => {
    await pair.routes({
        ...ROUTES,
        routes: {
            brief: { route: 'FROM /messages/modules/sensor/outputs/brief INTO BrokeredEndpoint("/modules/late/inputs/in")', timeToLiveSecs: 1 },
            lasting: 'FROM /messages/modules/sensor/outputs/lasting INTO BrokeredEndpoint("/modules/late/inputs/in")',
        },
    });
    for (let n = 1; n <= 3; n++) {
        await sensor.sendOutputEvent('brief', reading(n, n));
        await sensor.sendOutputEvent('lasting', reading(n, n));
    }
    const sent = Date.now();
    await pair.edge.killAll();
    await until('the second is over', () => Date.now() > sent + 1100);
    pair.edge.start();
    await pair.edge.ready();
    const late = await module('late');
    await got(late, 3);
    await drained('modules/late/inputs/in');
    assert.deepEqual(late.received.map(({ body }) => body), ['{"n":1}', '{"n":2}', '{"n":3}']);
    const account = await queue('modules/late/inputs/in');
    balance(account);
    assert.deepEqual([account.accepted, account.delivered, account.expired], [6, 3, 3]);
    await late.close();
    await pair.routes(ROUTES);
});

test('what no route wants is acknowledged, and goes nowhere', async () => {
    const before = (await pair.edge.status()).router.messages_unrouted;
    await sensor.sendOutputEvent('nowhere', reading(1, 1)); // `all` takes every output of the sensor
    const other = await module('other', deaf);
    await other.sendOutputEvent('nowhere', new Message('x'));
    assert.equal((await pair.edge.status()).router.messages_unrouted, before + 1);
    await other.close();
});

test('a module of a leaf device does not get what is for the module of that name here', async () => {
    await pair.addDevice('leaf2');
    const stranger = await module('filter', { deviceId: 'leaf2' });
    await sensor.sendOutputEvent('out1', reading(5, 50));
    const filter = await module('filter');
    await until('the right one has it', () => filter.received.some(({ body }) => body === '{"n":5}'));
    assert.deepEqual(stranger.received, []);
    await stranger.close();
    await filter.close();
});

test('routes change while messages flow; a set that is refused changes nothing', async () => {
    const before = await pair.edge.ctl('routes');
    assert.deepEqual(before.map((route) => route.name).sort(), Object.keys(ROUTES.routes).sort());
    await pair.writeRoutes({ ...ROUTES, routes: { ...ROUTES.routes, bad: 'FROM /messages/* WHERE temperature > 20 INTO $upstream' } });
    const refused = await until('it is refused', async () => {
        const { stderr } = await pair.edge.ctlRaw('routes');
        return stderr && stderr;
    });
    assert.match(refused, /routes\.json refused: Error parsing route bad - column \d+: expected/);
    assert.deepEqual(await pair.edge.ctl('routes'), before);
    const { code, stderr } = await pair.edge.ctlRaw('config', 'check');
    assert.equal(code, 1);
    assert.match(stderr, /router\.yaml:\d+: settings\.routes_file: expected a file of good routes; .*Error parsing route bad/);

    await pair.edge.ctl('plugin', 'kill', 'router'); // the last good ones are there although the file is bad
    await until('the router is back', async () => (await pair.edge.plugin('router'))?.state === 'ready');
    await until('with its routes', async () => (await pair.edge.ctl('routes')).length === before.length);
    const filter = await module('filter');
    await sensor.sendOutputEvent('out1', reading(6, 60));
    await until('they still hold', () => filter.received.some(({ input, body }) => input === 'in1' && body === '{"n":6}'));

    await sensor.sendOutputEvent('out1', reading(3, 33)); // for the archive, which is away
    await pair.routes({ ...ROUTES, routes: { only: 'FROM /messages/modules/sensor/* INTO BrokeredEndpoint("/modules/filter/inputs/new")' } });
    await sensor.sendOutputEvent('out1', reading(7, 70));
    const entry = await until('by the new ones', () => filter.received.find(({ body }) => body === '{"n":7}'));
    assert.equal(entry.input, 'new');
    const archive = await module('archive'); // no route goes there any more, and what waited is still there
    await got(archive, 1);
    assert.equal(archive.received[0].message.properties.getValue('temperature'), '33');
    await archive.close();
    await filter.close();
    await sensor.close();
});

// A full store holds back who fills it, and nobody else: not the module that makes room, not what has a reserve, not everybody
// behind one message that never fits.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import device from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';

import { Pair, balance, bodyOf, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

const { Message, ModuleClient } = device;
const input = (module, name) => `BrokeredEndpoint("/modules/${module}/inputs/${name}")`;

// @routes: of a deployment that bounds the store to 16 MiB, unless @bytes says otherwise.
async function create(routes, bytes = 16 << 20) {
    const pair = await Pair.create();
    await pair.routes({ schemaVersion: '1.1', routes, storeAndForwardConfiguration: { timeToLiveSecs: -1, storeLimits: { maxSizeBytes: bytes } } });
    await until('the store knows its bound', async () => (await pair.edge.status()).store.max_bytes <= bytes);
    pair.publishers = [];
    pair.publish = async (deviceId, options) => {
        const { primary_key: key } = await pair.addDevice(deviceId);
        const publisher = new Publisher({ host: pair.init.address, hub: pair.init.hub_address, deviceId, key, ca: pair.ca, random: true, ...options });
        pair.publishers.push(publisher);
        return publisher.start();
    };
    pair.stat = async (name) => (await pair.edge.plugin('mqtt-listener')).stats[name] ?? 0;
    // What was accepted is what was acknowledged: none was stored twice, but what a publisher sent again.
    pair.once = async (name) => {
        const { accepted } = (await pair.edge.ctl('queues')).find((q) => q.name === name);
        const sum = (set) => pair.publishers.reduce((total, publisher) => total + publisher[set].size, 0);
        assert.ok(accepted >= sum('acked') && accepted <= sum('acked') + sum('resent'), `${accepted} accepted, ${sum('acked')} acknowledged, ${sum('resent')} sent again`);
    };
    pair.end = async () => {
        pair.publishers.forEach((publisher) => publisher.stop());
        await pair.stop();
    };
    return pair;
}

describe('a module that makes room goes on', { concurrency: false }, () => {
    let pair;
    let monitor;
    let filter;
    let forwarded = 0;

    before(async () => {
        pair = await create({
            in: `FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO ${input('filter', 'in')}`,
            out: 'FROM /messages/modules/filter/outputs/* INTO $upstream',
        });
        monitor = pair.monitor();
        filter = ModuleClient.fromConnectionString(pair.connectionString(await pair.hub.ctl('hub', 'module', 'add', 'edge1', 'filter')), Mqtt);
        await filter.setOptions({ ca: pair.ca });
    });
    after(async () => {
        await filter?.close();
        await pair?.end();
    });

    test('while devices fill its input to the brim', async () => {
        for (const name of ['tap-1', 'tap-2', 'tap-3']) await pair.publish(name, { payload: 2000, window: 50 });
        await until('the store is full', async () => (await pair.stat('detours')) > 0, 60000);
        filter.on('inputMessage', (name, message) => {
            filter.complete(message, () => {});
            filter.sendOutputEvent('out', new Message(JSON.stringify({ from: message.properties.getValue('$.cdid'), ...JSON.parse(message.data.toString()), pad: '' }))).then(() => forwarded++);
        });
        await filter.open();
        for (const name of ['store', 'router', 'store', 'router']) { // a refused sequence is used again: by one of them only
            const mark = forwarded + 300;
            await until(`the filter goes on before ${name} dies`, () => forwarded > mark, 60000);
            const { pid, generation } = await pair.edge.plugin(name);
            process.kill(pid, 'SIGKILL');
            await until(`${name} again`, async () => {
                const now = await pair.edge.plugin(name);
                return now?.state === 'ready' && now.generation > generation;
            });
        }
        await until('the filter goes on', () => forwarded > 3000, 90000);
    });

    test('and nothing is lost', async () => {
        await Promise.all(pair.publishers.map((publisher) => publisher.windUp()));
        // The filter has some in hand when the queues are empty, and the monitor is a little behind.
        const missing = (events) => {
            const arrived = new Set(events.map((event) => JSON.parse(bodyOf(event))).map(({ from, n }) => `${from} ${n}`));
            return pair.publishers.flatMap(({ deviceId, acked }) => [...acked].map((n) => `${deviceId} ${n}`)).filter((name) => !arrived.has(name));
        };
        const all = pair.publishers.reduce((sum, publisher) => sum + publisher.acked.size, 0);
        await monitor.until('all that was acknowledged', (events) => events.length >= all && missing(events).length === 0, 90000);
        await until('all queues are empty', async () => (await pair.edge.ctl('queues')).every((queue) => queue.depth === 0));
        (await pair.edge.ctl('queues')).forEach(balance);
        await pair.once('modules/filter/inputs/in');
        assert.equal(await pair.stat('dropped_unstorable'), 0);
    });
});

test('priority 0 has a reserve, whoever fills the rest; and then all goes on in its order', async () => {
    const upstream = (condition, priority) => ({ route: `FROM /messages/* WHERE ${condition} INTO $upstream`, priority });
    const pair = await create({ low: upstream("$connectionDeviceId <> 'siren'", 9), urgent: upstream("$connectionDeviceId = 'siren'", 0) });
    try {
        const monitor = pair.monitor();
        for (const name of ['flood-1', 'flood-2']) await pair.publish(name, { payload: 2000, window: 50 });
        const siren = await pair.publish('siren', { payload: 100, total: 1 });
        await siren.finished;
        await pair.hub.ctl('hub', 'offline');
        await until('the store is full', async () => (await pair.stat('detours')) > 0, 60000);
        siren.goOn(50);
        await siren.finished; // would be held for ever
        await pair.hub.ctl('hub', 'online');
        for (const publisher of pair.publishers) await publisher.windUp();
        await until('the queue is empty', async () => (await pair.edge.status()).queues.find((q) => q.name === '$upstream')?.depth === 0, 60000);
        for (const publisher of pair.publishers) {
            await monitor.until(`all of ${publisher.deviceId}`, (events) => publisher.isComplete(events));
            const result = compare(publisher, monitor.events, { mayRepeat: true }); // the hub was cut
            assert.deepEqual([result.lost, result.disordered], [[], []]);
        }
        (await pair.edge.ctl('queues')).forEach(balance);
        await pair.once('$upstream');
    } finally {
        await pair.end();
    }
});

test('two hundred endpoints for every message, with names so long that a batch of them is too large', async () => {
    const routes = {};
    for (let i = 0; i < 200; i++) routes[`r${i}`] = `FROM /messages/* INTO ${input('wide', `${i}-${'x'.repeat(60)}`)}`;
    const pair = await create(routes, 2 ** 31);
    try {
        for (const name of ['many-1', 'many-2', 'many-3']) await pair.publish(name, { payload: 10, window: 1000, total: 1000 });
        await Promise.all(pair.publishers.map((publisher) => publisher.finished));
        const queues = await pair.edge.ctl('queues');
        assert.equal(queues.length, 200);
        for (const queue of queues) {
            balance(queue);
            assert.equal(queue.accepted, 3000);
        }
    } finally {
        await pair.end();
    }
});

test('a message that can never be stored is dropped, and counted; those behind it are not', async () => {
    const routes = { up: 'FROM /messages/* INTO $upstream' };
    for (let i = 0; i < 60; i++) routes[`r${i}`] = `FROM /messages/* WHERE $connectionDeviceId = 'giant' INTO ${input('wide', `i${i}`)}`;
    const pair = await create(routes);
    try {
        const monitor = pair.monitor();
        const giant = await pair.publish('giant', { payload: 200000, total: 1 });
        const dwarf = await pair.publish('dwarf', { payload: 10, total: 500 });
        await Promise.all([giant.finished, dwarf.finished]);
        await monitor.until('all of the dwarf', (events) => dwarf.isComplete(events));
        assert.equal(await until('it is counted', () => pair.stat('dropped_unstorable')), 1);
        assert.match(pair.edge.output, /message dropped reason="\d+ bytes, a copy for each queue, are more than the disk budget allows for" device=giant/);
        assert.deepEqual(compare(dwarf, monitor.events).lost, []);
    } finally {
        await pair.end();
    }
});

// One identity that the hub refuses does not hold up the others; what it sent is kept until the hub takes it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Pair, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

const count = 3000; // more than fits in the upstream's window: a refused one must not fill it

test('disabled at the hub with a backlog at the edge: the others flow, and enabled again it flows too', async () => {
    const pair = await Pair.create({ settings: { identity: (text) => text + '  scope_refresh_min_s: 1\n' } });
    try {
        const monitor = pair.monitor();
        const publishers = {};
        for (const id of ['barred', 'free']) {
            const device = await pair.addDevice(id);
            publishers[id] = new Publisher({
                host: pair.init.address, hub: pair.init.hub_address, deviceId: id, key: device.primary_key, ca: pair.ca, window: 100, total: count,
            });
        }
        const depth = async () => (await pair.edge.status()).queues.find((q) => q.name === '$upstream').depth;
        // Both are let in once: from here the edge knows them without the hub.
        for (const publisher of Object.values(publishers)) {
            publisher.total = 10;
            await publisher.start().finished;
            await until('the first are at the hub', () => publisher.isComplete(monitor.events));
        }
        await pair.hub.ctl('hub', 'offline');
        await until('the edge sees it', async () => (await pair.edge.status()).upstream.connected === false);
        await Promise.all(Object.values(publishers).map((publisher) => publisher.goOn(count).finished));
        assert.equal(await depth(), 2 * count - 20);

        await pair.hub.ctl('hub', 'device', 'disable', 'barred');
        await pair.hub.ctl('hub', 'online');
        await monitor.until('all of the free one', (events) => publishers.free.isComplete(events));
        assert.deepEqual(compare(publishers.free, monitor.events), { arrived: count, lost: [], disordered: [], repeated: 0, unexplained: [] });
        assert.equal(compare(publishers.barred, monitor.events).arrived, 10, 'the hub took messages of a disabled device');
        await until('only the refused are left', async () => (await depth()) === count - 10);

        await pair.hub.ctl('hub', 'device', 'enable', 'barred');
        await monitor.until('all of the barred one', (events) => publishers.barred.isComplete(events), 120000);
        assert.deepEqual(compare(publishers.barred, monitor.events), { arrived: count, lost: [], disordered: [], repeated: 0, unexplained: [] });
        await until('nothing left', async () => (await depth()) === 0);
    } finally {
        await pair.stop();
    }
});

// The whole edge dies at once while the hub is away, with a backlog on disk.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Pair, balance, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

test('SIGKILL of the whole edge while offline, three times: the backlog arrives after, in order, each once', async () => {
    const pair = await Pair.create();
    try {
        const monitor = pair.monitor();
        const publishers = [];
        for (let i = 0; i < 4; i++) {
            const device = await pair.addDevice(`dark-${i}`);
            publishers.push(new Publisher({
                host: pair.init.address, hub: pair.init.hub_address, deviceId: `dark-${i}`, key: device.primary_key, ca: pair.ca,
            }).start());
        }
        const progress = (count) => {
            const marks = publishers.map((publisher) => publisher.acked.size + count);
            return until('progress', () => publishers.every((publisher, i) => publisher.acked.size >= marks[i]), 60000);
        };
        await progress(20); // known to the edge: from here the hub may go
        await pair.hub.ctl('hub', 'offline');
        await until('the edge sees it', async () => (await pair.edge.status())?.upstream?.connected === false);
        const arrived = monitor.events.length;
        for (let round = 0; round < 3; round++) {
            await progress(200);
            await pair.edge.killAll();
            pair.edge.start();
            await pair.edge.ready();
        }
        await progress(50); // clients are let in from what is cached on disk
        await Promise.all(publishers.map((publisher) => publisher.windUp()));
        assert.equal(monitor.events.length, arrived, 'something reached a hub that is offline');
        await pair.hub.ctl('hub', 'online');
        await until('the queue is empty', async () => (await pair.edge.status()).queues.find((q) => q.name === '$upstream')?.depth === 0, 60000);
        for (const publisher of publishers) {
            await monitor.until(publisher.deviceId, (events) => publisher.isComplete(events));
            const result = compare(publisher, monitor.events, { mayRepeat: true });
            assert.deepEqual(result.disordered, []);
            // The cut itself may repeat what was in flight; after that only what a publisher sent again.
            const late = compare(publisher, monitor.events.slice(arrived));
            assert.deepEqual(late.unexplained, []);
        }
        const queue = (await pair.edge.ctl('queues')).find((q) => q.name === '$upstream');
        balance(queue);
        assert.ok(queue.delivered >= publishers.reduce((sum, publisher) => sum + publisher.acked.size, 0));
        assert.equal(queue.delivered, queue.accepted);
    } finally {
        await pair.stop();
    }
});

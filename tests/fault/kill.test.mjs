// Every process is killed and hung under load, again and again; then what was acknowledged is compared with what arrived.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Pair, balance, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

const plugins = ['front', 'identity', 'mqtt-listener', 'router', 'store', 'upstream-amqp'];
const publisherCount = 4;

describe('SIGKILL and SIGSTOP of each process under load', { concurrency: false }, () => {
    let pair;
    let monitor;
    let publishers;

    before(async () => {
        pair = await Pair.create();
        monitor = pair.monitor();
        publishers = [];
        for (let i = 0; i < publisherCount; i++) {
            const device = await pair.addDevice(`load-${i}`);
            publishers.push(new Publisher({
                host: pair.init.address, hub: pair.init.hub_address, deviceId: `load-${i}`, key: device.primary_key, ca: pair.ca,
            }).start());
        }
        await progress('at the start');
    });
    after(() => pair.stop());

    // Each publisher gets further acknowledgements: the whole path works.
    async function progress(when) {
        const marks = publishers.map((publisher) => publisher.acked.size + 50);
        await until(`every publisher goes on ${when}`, () => publishers.every((publisher, i) => publisher.acked.size >= marks[i]), 60000);
    }

    const pluginsOf = (status) => Object.fromEntries(status.plugins.map((plugin) => [plugin.name, plugin]));

    async function hit(name, signal) {
        const before = pluginsOf(await pair.edge.status());
        process.kill(before[name].pid, signal);
        await until(`${name} ready again after ${signal}`, async () => {
            const now = await pair.edge.plugin(name);
            return now?.state === 'ready' && now.generation > before[name].generation;
        }, 30000);
        await progress(`after ${signal} of ${name}`);
        const now = pluginsOf(await pair.edge.status());
        for (const other of Object.keys(before)) {
            if (other === name) continue;
            assert.equal(now[other].pid, before[other].pid, `${other} was restarted with ${name}`);
            assert.equal(now[other].generation, before[other].generation);
        }
    }

    for (const name of plugins) {
        test(`SIGKILL of ${name}, three times`, async () => {
            for (let round = 0; round < 3; round++) await hit(name, 'SIGKILL');
        });
        test(`SIGSTOP of ${name}`, () => hit(name, 'SIGSTOP'));
    }

    test('SIGKILL of brinkd: its plugins live, a new one takes them over', async () => {
        for (let round = 0; round < 3; round++) {
            const before = pluginsOf(await pair.edge.status());
            await pair.edge.killSupervisor();
            await progress('without a supervisor');
            pair.edge.start();
            const now = pluginsOf(await pair.edge.ready());
            for (const name of plugins) {
                assert.equal(now[name].pid, before[name].pid, `${name} was restarted`);
                assert.equal(now[name].generation, before[name].generation);
            }
            await hit('router', 'SIGKILL'); // it watches again
        }
    });

    test('SIGSTOP of brinkd: the data path does not care', async () => {
        pair.edge.process.kill('SIGSTOP');
        await progress('while the supervisor is stopped');
        pair.edge.process.kill('SIGCONT');
        await pair.edge.ready();
        await hit('store', 'SIGKILL');
    });

    test('all plugins at once', async () => {
        for (const pid of Object.values(await pair.edge.pids())) process.kill(pid, 'SIGKILL');
        await pair.edge.ready();
        await progress('after the death of all');
    });

    test('every acknowledged message arrived, in order, none repeated without a reason', async () => {
        await Promise.all(publishers.map((publisher) => publisher.windUp()));
        await until('the queue is empty', async () => (await pair.edge.status()).queues.find((q) => q.name === '$upstream')?.depth === 0, 60000);
        for (const publisher of publishers) {
            await monitor.until(`all of ${publisher.deviceId}`, (events) => publisher.isComplete(events));
            const result = compare(publisher, monitor.events, { mayRepeat: true }); // upstream was among the killed
            assert.deepEqual(result.lost, [], `${publisher.deviceId} lost`);
            assert.deepEqual(result.disordered, [], `${publisher.deviceId} out of order`);
        }
        const queue = (await pair.edge.ctl('queues')).find((q) => q.name === '$upstream');
        balance(queue);
        assert.ok(queue.delivered >= publishers.reduce((sum, publisher) => sum + publisher.acked.size, 0));
        assert.equal(queue.delivered, queue.accepted);
    });
});

describe('duplicates: where neither the hub connection nor its process was cut, only what a publisher re-sent comes twice', () => {
    test('front, listener, router, store and identity killed in turn', async () => {
        const pair = await Pair.create();
        try {
            const monitor = pair.monitor();
            const device = await pair.addDevice('solo');
            const publisher = new Publisher({
                host: pair.init.address, hub: pair.init.hub_address, deviceId: 'solo', key: device.primary_key, ca: pair.ca, window: 50,
            }).start();
            for (let round = 0; round < 3; round++) {
                for (const name of ['store', 'router', 'identity', 'mqtt-listener', 'front']) {
                    const mark = publisher.acked.size + 200;
                    await until('progress', () => publisher.acked.size >= mark, 60000);
                    const { pid, generation } = await pair.edge.plugin(name);
                    process.kill(pid, 'SIGKILL');
                    await until(`${name} again`, async () => {
                        const now = await pair.edge.plugin(name);
                        return now?.state === 'ready' && now.generation > generation;
                    });
                }
            }
            await publisher.windUp();
            await until('the queue is empty', async () => (await pair.edge.status()).queues.find((q) => q.name === '$upstream')?.depth === 0, 60000);
            await monitor.until('all acknowledged', (events) => publisher.isComplete(events));
            const result = compare(publisher, monitor.events);
            assert.deepEqual(result.lost, []);
            assert.deepEqual(result.disordered, []);
            assert.deepEqual(result.unexplained, []);
        } finally {
            await pair.stop();
        }
    });
});

// A small disk, and a hub that is away for long. The edge's state is on a file system of 64 MB of its own.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { open, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { Pair, balance, program, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

const mega = 1 << 20;
const skip = process.getuid() !== 0 && 'mounting needs root';

// An ext4 file system in a file, mounted over the edge's state directory.
class Disk {
    constructor(file, at) {
        Object.assign(this, { file, at });
        execFileSync('truncate', ['-s', '64M', file]);
        execFileSync('mkfs.ext4', ['-q', '-m', '0', file]);
        execFileSync('mount', ['-o', 'loop', file, at]);
        this.least = Infinity;
        this.unmount = () => this.remove();
        process.once('exit', this.unmount);
    }

    // What somebody else on this file system sees: there is always room for a little.
    async look() {
        const { bavail, bsize } = await statfs(this.at);
        this.least = Math.min(this.least, bavail * bsize);
        const file = path.join(this.at, 'neighbour');
        await writeFile(file, Buffer.alloc(mega, 1), { flush: true });
        await rm(file);
    }

    // Takes all that is left, to the last block.
    async fillUp() {
        const file = await open(path.join(this.at, 'flood'), 'w');
        try {
            for (let size = mega; size >= 4096; size /= 2)
                try {
                    for (;;) await file.writeFile(Buffer.alloc(size, 1));
                } catch (error) {
                    assert.equal(error.code, 'ENOSPC');
                }
        } finally {
            await file.close();
        }
    }

    ebb() {
        return rm(path.join(this.at, 'flood'));
    }

    remove() {
        if (!this.at) return;
        process.removeListener('exit', this.unmount);
        try {
            execFileSync('umount', [this.at]);
        } catch {
            execFileSync('umount', ['-l', this.at]); // somebody still has a file open
        }
        rmSync(this.file, { force: true });
        this.at = undefined;
    }
}

// A file system over the edge's state directory that answers EIO when it is told to.
class FailingDisk {
    constructor(file, at) {
        Object.assign(this, { control: `${file}.control`, at });
        mkdirSync(`${file}.source`);
        this.process = spawn(program('brink-failing-fs'), [this.control, `${file}.source`, at, '-f'], { stdio: 'inherit' });
        this.unmount = () => this.remove();
        process.once('exit', this.unmount);
    }

    mounted() {
        return until('it is mounted', async () => (await readFile('/proc/mounts', 'utf8')).includes(` ${this.at} fuse`));
    }

    fail(mode) {
        return writeFile(this.control, mode);
    }

    heal() {
        return rm(this.control);
    }

    remove() {
        if (!this.at) return;
        process.removeListener('exit', this.unmount);
        execFileSync('umount', ['-l', this.at]);
        this.at = undefined;
    }
}

// An edge on a small disk, with publishers; a hub that goes offline when they are known.
class Trial {
    // @routes: other than everything upstream. @dry: how many messages the device of that name sends.
    static async create({ disk = Disk, store = (text) => text, routes, dry = Infinity } = {}) {
        const trial = new Trial();
        trial.pair = await Pair.create({ start: false, settings: { store } });
        try {
            trial.disk = new disk(path.join(trial.pair.dir, 'disk.img'), path.join(trial.pair.init.edge_config, 'state'));
            await trial.disk.mounted?.();
            trial.pair.hub.start();
            await trial.pair.hub.ready();
            trial.pair.edge.start();
            await trial.pair.edge.ready();
            if (routes) await trial.pair.routes(routes);
            trial.monitor = trial.pair.monitor();
            trial.publishers = [];
            for (const deviceId of ['wet', 'dry']) {
                const device = await trial.pair.addDevice(deviceId);
                trial.publishers.push(new Publisher({
                    host: trial.pair.init.address, hub: trial.pair.init.hub_address, deviceId, key: device.primary_key, ca: trial.pair.ca,
                    payload: 2000, random: true, window: 50, total: deviceId === 'dry' ? dry : Infinity,
                }).start());
            }
            await until('publishers at work', () => trial.publishers.every((publisher) => publisher.acked.size > 20));
            await trial.pair.hub.ctl('hub', 'offline');
            await until('the edge sees it', async () => (await trial.pair.edge.status())?.upstream?.connected === false);
            return trial;
        } catch (error) {
            await trial.stop();
            throw error;
        }
    }

    get acked() {
        return this.publishers.reduce((sum, publisher) => sum + publisher.acked.size, 0);
    }

    async queue() {
        return (await this.pair.edge.ctl('queues')).find((queue) => queue.name === '$upstream');
    }

    async stat(name) {
        return (await this.pair.edge.plugin('store'))?.stats[name] ?? 0;
    }

    // While probing for something, the neighbour looks on.
    until(what, probe, limitMs = 120000) {
        return until(what, async () => {
            await this.disk.look?.();
            return probe();
        }, limitMs);
    }

    // The store says no again and again, and nobody was told yes in between.
    held() {
        let last = {};
        let times = 0;
        return this.until('publishers held', async () => {
            const now = { acked: this.acked, refused: await this.stat('refused_full') };
            if (now.acked !== last.acked) times = 0;
            else if (now.refused > last.refused) times++;
            last = now;
            return times >= 3;
        });
    }

    // Nobody was told yes for two seconds.
    quiet() {
        let acked;
        let since;
        return until('publishers held', () => {
            if (this.acked !== acked) since = Date.now();
            acked = this.acked;
            return Date.now() - since > 2000;
        });
    }

    async progress(count, when) {
        const mark = this.acked + count;
        await until(`publishers go on ${when}`, () => this.acked >= mark, 60000);
    }

    async killStore() {
        const { pid, generation } = await this.pair.edge.plugin('store');
        process.kill(pid, 'SIGKILL');
        await until('the store again', async () => {
            const now = await this.pair.edge.plugin('store');
            return now?.state === 'ready' && now.generation > generation;
        });
    }

    windUp() {
        return Promise.all(this.publishers.map((publisher) => publisher.windUp()));
    }

    // The hub is there again: everything goes out.
    async drain() {
        await this.pair.hub.ctl('hub', 'online');
        await this.progressOrEnd();
        await this.windUp();
        await this.until('the queue is empty', async () => (await this.queue()).depth === 0);
        for (const publisher of this.publishers)
            await this.monitor.until(`the last of ${publisher.deviceId}`, (events) => publisher.isComplete(events));
    }

    progressOrEnd() {
        return this.publishers.some((publisher) => !publisher.stopped) && this.progress(500, 'after the hub is back');
    }

    // What was left to others at the worst moment.
    leftToOthers(t) {
        t.diagnostic(`${(this.disk.least / mega).toFixed(1)} MiB were left to others`);
        assert.ok(this.disk.least > 4 * mega, `${this.disk.least} bytes`);
    }

    // The equation of custody, for the queue and for each of its priorities.
    async ledger() {
        const queue = await this.queue();
        balance(queue);
        return queue;
    }

    async stop() {
        this.publishers?.forEach((publisher) => publisher.stop());
        await this.pair.edge.stop();
        this.disk?.remove();
        await this.pair.stop();
    }
}

describe('when_full: reject', { skip, concurrency: false }, () => {
    let trial;

    before(async () => {
        trial = await Trial.create();
    });
    after(() => trial?.stop());

    test('publishers are held before the disk is full, and stay so over a kill of the store', async (t) => {
        await trial.held();
        const { acked } = trial;
        assert.ok(acked * 2000 > 20 * mega, `held after ${acked} messages`);
        await trial.killStore();
        await trial.held();
        assert.ok(trial.acked - acked < 1000, 'hardly any more fit in');
        const { store } = await trial.pair.edge.status();
        assert.ok(store.bytes < store.max_bytes, `${store.bytes} of ${store.max_bytes}`);
        trial.leftToOthers(t);
    });

    test('they go on when the hub is back; nothing acknowledged is lost', async (t) => {
        await trial.drain();
        for (const publisher of trial.publishers) {
            const result = compare(publisher, trial.monitor.events, { mayRepeat: true }); // the hub was cut
            assert.deepEqual(result.lost, []);
            assert.deepEqual(result.disordered, []);
        }
        assert.equal((await trial.ledger()).dropped, 0);
        trial.leftToOthers(t);
    });
});

describe('when_full: drop-oldest', { skip, concurrency: false }, () => {
    const DRY = 1500; // fit in easily
    let trial;

    before(async () => {
        const upstream = (condition, priority) => ({ route: `FROM /messages/* WHERE ${condition} INTO $upstream`, priority });
        trial = await Trial.create({
            store: (text) => text.replace('when_full: reject', 'when_full: drop-oldest'),
            routes: {
                schemaVersion: '1.1',
                routes: { dry: upstream("$connectionDeviceId = 'dry'", 3), wet: upstream("$connectionDeviceId <> 'dry'", 7) },
                storeAndForwardConfiguration: { timeToLiveSecs: -1 },
            },
            dry: DRY,
        });
    });
    after(() => trial?.stop());

    test('publishers are not held; the oldest of the lowest priority go, and the ledger says how many', async (t) => {
        await trial.until('twice of what fits', async () => (await trial.queue()).dropped > 12000);
        await trial.windUp();
        const { dropped } = await trial.ledger();
        await trial.killStore(); // which knows what it dropped, and forgets what the upstream holds
        await trial.drain();
        const [wet, dry] = trial.publishers.map((publisher) => compare(publisher, trial.monitor.events, { mayRepeat: true }));
        assert.deepEqual(dry.lost, []);
        assert.equal(trial.publishers[1].acked.size, DRY);
        assert.deepEqual([wet.disordered, dry.disordered], [[], []]);
        // One stretch: what was on its way before is spared, what came after is there.
        const numbers = wet.lost.sort((a, b) => a - b);
        assert.equal(numbers.at(-1) - numbers[0] + 1, numbers.length, 'the oldest, without a gap');
        assert.ok(numbers.at(-1) < trial.publishers[0].total - 1000, 'the newest are there');
        assert.equal(dropped, numbers.length);
        assert.deepEqual((await trial.ledger()).priorities.map((priority) => [priority.priority, priority.dropped]), [[3, 0], [7, dropped]]);
        trial.leftToOthers(t);
    });
});

describe('others fill the disk', { skip, concurrency: false }, () => {
    let trial;

    before(async () => {
        trial = await Trial.create();
    });
    after(() => trial?.stop());

    test('to the last block, three times: publishers are held, nobody dies, it goes on when there is room', async () => {
        const before = await trial.pair.edge.status();
        for (let round = 0; round < 3; round++) {
            await trial.progress(300, 'with room');
            await trial.disk.fillUp();
            await trial.quiet();
            await trial.disk.ebb();
        }
        await trial.progress(300, 'after all');
        const now = await trial.pair.edge.status();
        assert.deepEqual(now.plugins.map(({ name, pid }) => [name, pid]), before.plugins.map(({ name, pid }) => [name, pid]));
        await trial.drain();
        for (const publisher of trial.publishers) {
            const result = compare(publisher, trial.monitor.events, { mayRepeat: true });
            assert.deepEqual(result.lost, []);
            assert.deepEqual(result.disordered, []);
        }
        assert.equal((await trial.ledger()).dropped, 0);
    });
});

describe('the disk fails', { skip, concurrency: false }, () => {
    let trial;

    before(async () => {
        trial = await Trial.create({ disk: FailingDisk });
    });
    after(() => trial?.stop());

    test('EIO for a while, from fsync, from write, from everything: publishers are held, nobody dies, it goes on by itself', async () => {
        const before = await trial.pair.edge.status();
        for (const mode of ['sync', 'write', 'all', 'sync', 'write', 'all']) {
            await trial.progress(300, `before ${mode} fails`);
            await trial.disk.fail(mode);
            await trial.quiet();
            await trial.disk.heal();
        }
        await trial.progress(300, 'after all');
        const now = await trial.pair.edge.status();
        assert.deepEqual(now.plugins.map(({ name, pid }) => [name, pid]), before.plugins.map(({ name, pid }) => [name, pid]));
    });

    test('what was acknowledged is there, also after a kill in the middle of it', async () => {
        await trial.disk.fail('sync');
        await trial.quiet();
        await trial.killStore();
        await trial.disk.heal();
        await trial.progress(300, 'again');
        await trial.drain();
        for (const publisher of trial.publishers) {
            const result = compare(publisher, trial.monitor.events, { mayRepeat: true });
            assert.deepEqual(result.lost, []);
            assert.deepEqual(result.disordered, []);
        }
        const account = await trial.ledger();
        assert.equal(account.dropped, 0);
        assert.equal(account.delivered, account.accepted);
    });
});

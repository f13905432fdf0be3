// brinkd as a service of a real systemd: installed, started, stopped, killed, hung, misconfigured and rebooted, as the section
// "Under systemd" of docs/operating.md says.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { randomInt } from 'node:crypto';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';

import { Monitor, until } from '../harness.mjs';
import { Machine } from '../machine.mjs';
import { Publisher, compare } from '../publisher.mjs';

const plugins = ['front', 'identity', 'mqtt-listener', 'router', 'store', 'upstream-amqp'];
const network = `127.${randomInt(64, 250)}.${randomInt(1, 250)}`;
const edge = `${network}.1`;
const hub = `${network}.2`;
const watchdogSeconds = 3;

describe('brinkd under systemd as PID 1', { concurrency: false }, () => {
    let machine;
    let monitor;
    let ca;
    const publishers = [];

    before(async () => {
        machine = await Machine.create();
    });
    after(() => {
        for (const publisher of publishers) publisher.stop();
        monitor?.stop();
        machine?.discard();
    });

    const systemctl = (...args) => machine.exec('systemctl', ...args);
    const show = async (property, unit = 'brink') => (await systemctl('show', unit, '-P', property)).trim();
    const ctl = async (...args) => JSON.parse(await machine.exec('brinkctl', ...args, '--json'));
    const hubctl = (...args) => ctl('hub', ...args, '--config', '/srv/brink/hub');
    const signal = (name) => systemctl('kill', '--kill-whom=main', `--signal=${name}`, 'brink');
    const lines = (text) => text.split('\n').filter(Boolean);
    const processes = async () =>
        lines((await machine.execRaw('cat', '/sys/fs/cgroup/system.slice/brink.service/cgroup.procs')).stdout).map(Number);

    // Whether all plugins are ready, and what each is known by.
    async function status() {
        const all = (await ctl('status')).plugins;
        return {
            ready: all.every((plugin) => plugin.state === 'ready'),
            ids: Object.fromEntries(all.map(({ name, pid, generation }) => [name, { pid, generation }])),
        };
    }

    async function journal(...match) {
        return lines(await machine.exec('journalctl', '--output=json', '--no-pager', ...match)).map((line) => JSON.parse(line));
    }
    const cursor = async () => (await machine.exec('journalctl', '--lines=0', '--show-cursor')).match(/cursor: (\S+)/)[1];
    const since = async (mark) => (await journal(`--after-cursor=${mark}`)).map((entry) => entry.MESSAGE);

    async function publish(deviceId) {
        const device = await hubctl('device', 'add', deviceId, '--parent', 'edge1');
        const publisher = new Publisher({ host: edge, hub, deviceId, key: device.primary_key, ca }).start();
        publishers.push(publisher);
        return publisher;
    }

    function progress(when) {
        const marks = publishers.map((publisher) => publisher.acked.size + 50);
        return until(`every publisher goes on ${when}`, () => publishers.every((publisher, i) => publisher.acked.size >= marks[i]), 60000);
    }

    // @end ends the supervisor one way or other; systemd starts the next, which finds all as it was.
    async function adopted(result, end) {
        const mark = await cursor();
        const pid = await show('MainPID');
        const { ids } = await status();
        const connects = publishers.map((publisher) => publisher.connects);
        await end();
        await until('another supervisor is ready', async () => await show('ActiveState') === 'active' && !['0', pid].includes(await show('MainPID')));
        await progress(`after ${result}`);
        const now = await status();
        assert.deepEqual(now.ids, ids, 'plugins were restarted');
        assert.ok(now.ready);
        assert.deepEqual(publishers.map((publisher) => publisher.connects), connects, 'clients lost their connections');
        const log = await since(mark);
        assert.ok(log.includes(`brink.service: Failed with result '${result}'.`), log.join('\n'));
        assert.equal(log.filter((line) => line.startsWith('plugin adopted ')).length, plugins.length);
        return log;
    }

    test('installed: the unit is sound, its user and folders are there', async () => {
        await machine.install('/usr');
        await machine.exec('systemd-sysusers');
        await machine.exec('systemd-tmpfiles', '--create');
        await systemctl('daemon-reload');
        const verified = await machine.execRaw('systemd-analyze', 'verify', 'brink.service');
        assert.deepEqual(verified, { code: 0, stdout: '', stderr: '' });
        assert.match(await machine.exec('getent', 'passwd', 'brink'), /^brink:x:\d+:\d+:Brink edge runtime:\/var\/lib\/brink:.*nologin$/m);
        assert.deepEqual(lines(await machine.exec('stat', '-c', '%a %U %G %n', '/run/brink', '/var/lib/brink')),
            ['750 root brink /run/brink', '750 root brink /var/lib/brink']);
    });

    test('configured: files of brinkctl init in /etc/brink, and a hub as a service of its own', async () => {
        await machine.exec('brinkctl', 'init', '--dir', '/srv/brink', '--address', edge, '--hostname', edge, '--hub-address', hub,
            '--device-id', 'edge1');
        await machine.exec('cp', '-a', '/srv/brink/edge', '/etc/brink');
        await machine.exec('rm', '-r', '/etc/brink/run', '/etc/brink/state');
        await machine.exec('sed', '-i', 's,/srv/brink/edge/run,/run/brink,; s,/srv/brink/edge/state,/var/lib/brink,; s,/srv/brink/edge,/etc/brink,',
            '/etc/brink/brink.yaml', ...plugins.map((name) => `/etc/brink/plugins.d/${name}.yaml`));
        assert.equal(await machine.exec('brinkd', '--check'), 'the configuration is valid\n');
        const unit = await systemctl('cat', 'brink.service');
        await machine.write('/etc/systemd/system/brink-hub.service', unit.replace('--config /etc/brink', '--config /srv/brink/hub'));
        await systemctl('daemon-reload');
        await systemctl('start', 'brink-hub');
        monitor = new Monitor('/srv/brink/hub', machine.command('brinkctl'));
        ca = await machine.exec('cat', '/srv/brink/ca.pem');
    });

    test('systemctl start returns when all plugins are ready; status tells so', async () => {
        await systemctl('enable', '--now', 'brink');
        const { ready, ids } = await status();
        assert.ok(ready);
        assert.deepEqual(Object.keys(ids), plugins);
        assert.equal(await show('ActiveState'), 'active');
        assert.match(await systemctl('status', 'brink'), /^ +Status: "6 of 6 plugins ready"$/m);
        assert.deepEqual((await processes()).sort(), [await show('MainPID'), ...Object.values(ids).map(({ pid }) => pid)].map(Number).sort());
        for (let i = 0; i < 3; i++) await publish(`load-${i}`);
        await progress('at the start');
        await monitor.count(100);
    });

    test('plugins are the user brink and have no privileges', async () => {
        const uid = (await machine.exec('id', '-u', 'brink')).trim();
        for (const { pid } of Object.values((await status()).ids)) {
            const text = await machine.exec('cat', `/proc/${pid}/status`);
            assert.match(text, new RegExp(`^Uid:\t${uid}\t${uid}\t${uid}\t${uid}$`, 'm'));
            assert.match(text, /^CapEff:\t0+$/m);
            assert.match(text, /^NoNewPrivs:\t1$/m);
        }
    });

    test('the journal has the lines with their fields', async () => {
        const { ids } = await status();
        const [ready] = await journal('--unit=brink', 'SYSLOG_IDENTIFIER=brinkd', `BRINK_COUNT=${plugins.length}`);
        assert.equal(ready.MESSAGE, 'ready count=6');
        assert.equal(ready.PRIORITY, '6');
        assert.equal(ready._PID, await show('MainPID'));
        const changes = await journal('--unit=brink', 'SYSLOG_IDENTIFIER=brinkd', 'BRINK_PLUGIN=store', 'BRINK_STATE=ready');
        assert.equal(changes.length, 1);
        for (const name of plugins) {
            const [line] = await journal('--unit=brink', `SYSLOG_IDENTIFIER=${name}`, `BRINK_GENERATION=${ids[name].generation}`);
            assert.equal(line?.MESSAGE, `ready generation=${ids[name].generation} pid=${ids[name].pid}`);
            assert.equal(line._TRANSPORT, 'journal');
            assert.equal(line._PID, String(ids[name].pid));
        }
        assert.deepEqual(await journal('--unit=brink', '_TRANSPORT=stdout'), [], 'somebody writes past the log');
        assert.deepEqual((await journal('--unit=brink', '--priority=err')).map((entry) => entry.MESSAGE), []);
    });

    test('SIGKILL of brinkd, three times: systemd starts the next, plugins and connections stay', async () => {
        for (let round = 1; round <= 3; round++) {
            await adopted('signal', () => signal('SIGKILL'));
            assert.equal(await show('NRestarts'), String(round));
        }
    });

    test('the new supervisor supervises: a plugin it adopted and that dies is started again', async () => {
        const { ids } = await status();
        await machine.exec('brinkctl', 'plugin', 'kill', 'router');
        await until('the router is another', async () => {
            const now = await status();
            return now.ready && now.ids.router.generation > ids.router.generation;
        });
        await progress('after the death of the router');
    });

    test('a journald that is restarted loses nobody', async () => {
        await systemctl('restart', 'systemd-journald');
        const mark = await cursor();
        await machine.exec('brinkctl', 'plugin', 'restart', 'router');
        const log = await since(mark);
        assert.ok(log.some((line) => /^draining /.test(line)) && log.some((line) => /^plugin ended plugin=router /.test(line)), log.join('\n'));
    });

    test('SIGSTOP of brinkd: the watchdog ends it, systemd starts the next, plugins and connections stay', async () => {
        assert.equal(await show('WatchdogUSec'), '30s');
        await machine.write('/etc/systemd/system/brink.service.d/watchdog.conf', `[Service]\nWatchdogSec=${watchdogSeconds}s\n`);
        await systemctl('daemon-reload');
        await systemctl('restart', 'brink'); // the limit is read when it starts
        const log = await adopted('watchdog', async () => {
            await signal('SIGSTOP');
            await progress('while the supervisor hangs');
        });
        assert.ok(log.includes(`brink.service: Watchdog timeout (limit ${watchdogSeconds}s)!`));
    });

    test('one that does not hang is left alone by the watchdog', async () => {
        const [pid, mark] = [await show('MainPID'), await show('WatchdogTimestampMonotonic')];
        await until('two limits have passed', async () => Number(await show('WatchdogTimestampMonotonic')) > Number(mark) + 2 * watchdogSeconds * 1e6);
        assert.equal(await show('MainPID'), pid);
    });

    test('systemctl restart, under load: in order, nobody is killed, all are new', async () => {
        for (let round = 0; round < 5; round++) {
            const mark = await cursor();
            const before = await status();
            await systemctl('restart', 'brink');
            const now = await status();
            assert.ok(now.ready);
            for (const name of plugins) assert.equal(now.ids[name].generation, before.ids[name].generation + 1);
            assert.equal(await show('NRestarts'), '0');
            const log = await since(mark);
            assert.ok(log.includes('brink.service: Deactivated successfully.'), log.join('\n'));
            assert.deepEqual(log.filter((line) => /in time/.test(line)), []);
            const ended = log.filter((line) => line.startsWith('plugin ended ')).map((line) => /plugin=(\S+)/.exec(line)[1]);
            assert.deepEqual(ended.slice(0, 2).sort(), ['front', 'mqtt-listener'], 'who takes clients in goes first');
            assert.equal(ended.at(-1), 'store');
            assert.deepEqual(ended.sort(), plugins);
            await progress('after a restart');
        }
    });

    test('a plugin that does not come up: the others are up, STATUS names it', async () => {
        await machine.write('/etc/brink/plugins.d/zombie.yaml', 'role: zombie\nexec: /bin/true\n');
        await systemctl('restart', 'brink');
        assert.equal(await show('StatusText'), '6 of 7 plugins ready; zombie is backoff');
        await progress('beside one that does not come up');
        await machine.exec('rm', '/etc/brink/plugins.d/zombie.yaml');
        await systemctl('restart', 'brink');
        assert.equal(await show('StatusText'), '6 of 6 plugins ready');
    });

    test('a configuration that became wrong: an error in the journal, not tried again, plugins go on until it is mended', async () => {
        const { ids } = await status();
        const mark = await cursor();
        await machine.exec('cp', '/etc/brink/brink.yaml', '/etc/brink/good');
        await machine.exec('sh', '-c', 'echo "hostnam: x" >>/etc/brink/brink.yaml');
        await signal('SIGKILL');
        await until('systemd gave up', async () => await show('ActiveState') === 'failed');
        assert.equal(await show('ExecMainStatus'), '78');
        await progress('without a supervisor');
        await until('an error in the journal', async () => {
            const entries = await journal(`--after-cursor=${mark}`); // journalctl loses one when it also filters
            return entries.some((entry) => entry.PRIORITY === '3' && /^brink\.yaml:\d+: hostnam: unknown key/.test(entry.MESSAGE));
        });
        await machine.exec('mv', '/etc/brink/good', '/etc/brink/brink.yaml');
        await systemctl('start', 'brink');
        assert.deepEqual((await status()).ids, ids, 'plugins were restarted');
        await progress('when it is mended');
    });

    test('systemctl stop ends all, even while brinkd hangs; nothing listens any more', async () => {
        await signal('SIGSTOP');
        await systemctl('stop', 'brink');
        assert.equal(await show('ActiveState'), 'inactive');
        assert.deepEqual(await processes(), []);
        await assert.rejects(once(net.connect(8883, edge), 'connect'), { code: 'ECONNREFUSED' });
        await systemctl('start', 'brink');
        await progress('after stop and start');
    });

    test('systemctl kill: all at once, as a power cut; all are started again', async () => {
        const { ids } = await status();
        await systemctl('kill', '--signal=SIGKILL', 'brink');
        await until('all are new', async () => {
            const now = await status().catch(() => undefined);
            return now?.ready && plugins.every((name) => now.ids[name].generation > ids[name].generation);
        });
        await progress('after the death of all');
    });

    test('socket activation: a client starts it, and nobody is refused while it restarts or is killed', async () => {
        await systemctl('stop', 'brink');
        await machine.write('/etc/systemd/system/brink-mqtts.socket',
            `[Socket]\nListenStream=${edge}:8883\nFileDescriptorName=front.mqtts\nService=brink.service\n\n[Install]\nWantedBy=sockets.target\n`);
        await systemctl('daemon-reload');
        await systemctl('enable', '--now', 'brink-mqtts.socket');
        await progress('as they connect: systemd starts brinkd'); // publishers try again all the time
        assert.equal(await show('ActiveState'), 'active');
        assert.deepEqual(await show('TriggeredBy'), 'brink-mqtts.socket');

        const refused = [];
        let tried = 0;
        let done = false;
        const knocking = (async () => {
            for (; !done; tried++) {
                const socket = net.connect(8883, edge);
                await once(socket, 'connect').catch((error) => refused.push(error.code));
                socket.destroy();
                await new Promise((resolve) => setTimeout(resolve, 5));
            }
        })();
        await systemctl('restart', 'brink');
        await progress('after a restart');
        await adopted('signal', () => signal('SIGKILL'));
        done = true;
        await knocking;
        assert.ok(tried > 50);
        assert.deepEqual(refused, []);
        const address = Buffer.from(edge.split('.').map(Number).reverse()).toString('hex').toUpperCase();
        const listening = lines(await machine.exec('cat', '/proc/net/tcp')).filter((line) => line.includes(` ${address}:22B3 00000000:0000 0A `));
        assert.equal(listening.length, 1, 'it is one socket still');
    });

    test('every acknowledged message arrived, in order', async () => {
        await Promise.all(publishers.map((publisher) => publisher.windUp()));
        await until('the queue is empty', async () => (await ctl('status')).queues.find((queue) => queue.name === '$upstream')?.depth === 0, 60000);
        for (const publisher of publishers) {
            await monitor.until(`all of ${publisher.deviceId}`, (events) => publisher.isComplete(events));
            const result = compare(publisher, monitor.events, { mayRepeat: true }); // upstream was restarted
            assert.deepEqual(result.lost, [], `${publisher.deviceId} lost`);
            assert.deepEqual(result.disordered, [], `${publisher.deviceId} out of order`);
        }
    });

    test('a reboot with a backlog: stopped in order, up again by itself, all of it arrives', async () => {
        await systemctl('stop', 'brink-hub');
        await until('the edge sees it', async () => (await ctl('status')).upstream.connected === false);
        const depth = async () => (await ctl('status')).queues.find((queue) => queue.name === '$upstream')?.depth;
        for (const publisher of publishers) publisher.goOn(publisher.total + 100);
        await Promise.all(publishers.map((publisher) => publisher.finished));
        assert.equal(await depth(), 300);
        const mark = await cursor();
        assert.notEqual(await machine.reboot(), 137, 'it was killed, for it did not end in time');
        const log = await since(mark);
        assert.ok(log.includes('brink.service: Deactivated successfully.'), log.slice(-20).join('\n'));
        await until('all is up', async () => (await status().catch(() => undefined))?.ready);
        assert.equal(await depth(), 300);
        monitor.stop();
        await systemctl('start', 'brink-hub');
        monitor = new Monitor('/srv/brink/hub', machine.command('brinkctl'));
        for (const publisher of publishers)
            await monitor.until(`all of ${publisher.deviceId}`, (events) => publisher.isComplete(events));
        await until('the queue is empty', async () => await depth() === 0);
        assert.deepEqual((await systemctl('--failed', '--plain', '--no-legend')), '');
    });
});

// The operator's commands on the local hub.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';

import device from 'azure-iot-device';
import { Amqp } from 'azure-iot-device-amqp';

import { Pair, bodyOf, program, until } from '../../harness.mjs';

const { Client, Message } = device;
let pair;
let hub;

before(async () => {
    pair = await Pair.create({ start: false });
    const file = path.join(pair.init.hub_config, 'plugins.d', 'hub-emulator.yaml');
    await writeFile(file, `${(await readFile(file, 'utf8')).trimEnd()}\n  keep_messages: 10\n`);
    hub = pair.hub.start();
    await hub.ready();
});
after(async () => {
    await Promise.allSettled(clients.map((client) => client.close()));
    await pair.stop();
});

const clients = [];
const ctl = (...args) => hub.ctl('hub', ...args);
async function refused(...args) {
    const { code, stderr } = await hub.ctlRaw('hub', ...args);
    assert.equal(code, 1, stderr);
    return stderr;
}

async function connect(connectionString) {
    const client = Client.fromConnectionString(connectionString, Amqp);
    clients.push(client);
    client.on('error', () => { });
    await client.setOptions({ ca: pair.ca });
    await client.open();
    return client;
}

test('devices are added, shown, listed and removed', async () => {
    const leaf = await ctl('device', 'add', 'leaf', '--parent', 'edge1');
    assert.equal(leaf.parent, 'edge1');
    assert.equal(leaf.edge, false);
    assert.equal(leaf.status, 'enabled');
    assert.equal(leaf.connection_string, `HostName=${pair.init.hub_address};DeviceId=leaf;SharedAccessKey=${leaf.primary_key}`);
    const child = await ctl('device', 'add', 'child', '--edge', '--parent', 'edge1');
    assert.equal(child.parent, 'edge1');
    assert.notEqual(child.scope, leaf.scope);
    assert.deepEqual(child.modules, ['$edgeAgent', '$edgeHub']);
    const x509 = await ctl('device', 'add', 'certified', '--auth', 'x509-ca');
    assert.equal(x509.auth, 'certificateAuthority');
    assert.equal(x509.connection_string, null);
    assert.deepEqual(await ctl('device', 'show', 'leaf'), leaf);
    assert.deepEqual((await ctl('device', 'list')).map((d) => d.device_id), ['certified', 'child', 'edge1', 'leaf']);
    const module = await ctl('module', 'add', 'leaf', 'm');
    assert.match(module.connection_string, /;DeviceId=leaf;ModuleId=m;SharedAccessKey=/);
    await ctl('device', 'remove', 'certified');
    assert.match(await refused('device', 'show', 'certified'), /certified/);
});

test('what cannot be done says why', async () => {
    assert.match(await refused('device', 'add', 'edge1'), /exists already/);
    assert.match(await refused('device', 'add', 'a b'), /expected a device id/);
    assert.match(await refused('device', 'add', 'x', '--parent', 'leaf'), /expected an edge device/);
    assert.match(await refused('module', 'add', 'nobody', 'm'), /no 'nobody'/);
    assert.match(await refused('device', 'disable', 'nobody'), /no 'nobody'/);
});

test('the edge device of the settings keeps its key over restarts', async () => {
    const before = await ctl('device', 'show', 'edge1');
    await hub.ctl('plugin', 'restart', 'hub-emulator');
    await hub.ready();
    assert.deepEqual(await ctl('device', 'show', 'edge1'), before);
});

test('a connected client comes back after the hub did', async () => {
    const client = await connect((await ctl('device', 'add', 'told')).connection_string);
    await client.sendEvent(new Message('before'));
    await hub.ctl('plugin', 'restart', 'hub-emulator');
    await client.sendEvent(new Message('after')); // the SDK connects anew by itself
    await until('it is there', async () => (await ctl('stats')).devices.told === 1);
    await client.close();
});

test('the newest messages are kept; a monitor sees those, and what comes', async () => {
    const client = await connect((await ctl('device', 'add', 'chatty')).connection_string);
    for (let n = 0; n < 25; n++) await client.sendEvent(new Message(`old ${n}`));
    const monitor = pair.monitor();
    const kept = await monitor.count(10);
    assert.deepEqual(kept.map(bodyOf), Array.from({ length: 10 }, (_, n) => `old ${n + 15}`));
    await client.sendEvent(new Message('new'));
    assert.equal(bodyOf((await monitor.count(11))[10]), 'new');
    const stats = await ctl('stats');
    assert.equal(stats.telemetry.kept_messages, 10);
    assert.equal(stats.devices.chatty, 26);
    assert.equal(stats.links, 1);
    await client.close();
    await until('no link is left', async () => (await ctl('stats')).links === 0);
});

test('a monitor can look at one device only, and ends after a count', async () => {
    const quiet = await connect((await ctl('device', 'add', 'quiet')).connection_string);
    const loud = await connect((await ctl('device', 'add', 'loud')).connection_string);
    const watch = spawn(program('brinkctl'), ['hub', 'monitor', '--json', '--device', 'quiet', '--count', '2', '--config', pair.init.hub_config]);
    let seen = '';
    watch.stdout.on('data', (data) => (seen += data));
    await Promise.all([1, 2, 3].map(() => loud.sendEvent(new Message('loud'))));
    await quiet.sendEvent(new Message('first'));
    await quiet.sendEvent(new Message('second'));
    const [code] = await once(watch, 'exit');
    assert.equal(code, 0);
    assert.deepEqual(seen.trim().split('\n').map((line) => JSON.parse(line).body), ['first', 'second']);
});

test('settings that are wrong name file, key and what was expected', async () => {
    const file = path.join(pair.dir, 'wrong.yaml');
    const good = await readFile(path.join(pair.init.hub_config, 'plugins.d', 'hub-emulator.yaml'), 'utf8');
    const check = async (text) => {
        await writeFile(file, text);
        const child = spawn(program('brink-hub-emulator'), ['--check', file]);
        let said = '';
        child.stderr.on('data', (data) => (said += data));
        child.stdout.on('data', (data) => (said += data));
        return [(await once(child, 'close'))[0], said];
    };
    assert.equal((await check(good))[0], 0);
    for (const [text, expected] of [
        [good.replace('keep_messages: 10', 'keep_messages: many'), /keep_messages.*many/],
        [good.replace('keep_messages: 10', 'keep_mesages: 10'), /keep_mesages/],
        [good.replace(/^ *hostname:.*$/m, ''), /hostname/],
        [good.replace(/^ *edge_device_id:.*$/m, ''), /edge_device_key_file/],
    ]) {
        const [code, said] = await check(text);
        assert.notEqual(code, 0, text);
        assert.match(said, expected);
        assert.match(said, /wrong\.yaml/);
    }
});

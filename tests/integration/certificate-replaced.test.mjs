// Another server certificate while clients are connected: who is there stays, who comes sees the new one.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import { Pair, until } from '../harness.mjs';
import { Publisher, compare } from '../publisher.mjs';

let pair;
let monitor;
let publisher;

before(async () => {
    pair = await Pair.create();
    monitor = pair.monitor();
    const leaf = await pair.addDevice('leaf');
    publisher = new Publisher({ host: pair.init.address, hub: pair.init.hub_address, deviceId: 'leaf', key: leaf.primary_key, ca: pair.ca, window: 5 }).start();
    await until('it is connected', () => publisher.acked.size > 10);
});
after(() => pair.stop());

async function served() {
    const socket = tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '' });
    await once(socket, 'secureConnect');
    const certificate = socket.getPeerX509Certificate();
    socket.destroy();
    return certificate;
}

test('names are added: the certificate is replaced in place', async () => {
    const before = await served();
    const front = (await pair.edge.plugin('front')).pid;
    assert.doesNotMatch(before.subjectAltName, /new\.example\.net/);

    await pair.configure('identity', (text) => text.replace('server_names: [', 'server_names: [new.example.net, '));
    await pair.edge.ctl('plugin', 'restart', 'identity');
    const now = await until('a new certificate is served', async () => {
        const certificate = await served();
        return certificate.fingerprint256 !== before.fingerprint256 && certificate;
    });
    assert.match(now.subjectAltName, /DNS:new\.example\.net/);
    assert.match(now.subjectAltName, new RegExp(`IP Address:${pair.init.address}`)); // and the names of before

    const acked = publisher.acked.size;
    await until('the old connection goes on', () => publisher.acked.size > acked + 20);
    assert.equal(publisher.connects, 1);
    assert.equal((await pair.edge.plugin('front')).pid, front);
});

test('identity is killed: the certificate stays the same, and nobody notices', async () => {
    const before = await served();
    const { pid } = await pair.edge.plugin('identity');
    await pair.edge.ctl('plugin', 'kill', 'identity');
    await until('identity is back', async () => {
        const plugin = await pair.edge.plugin('identity');
        return plugin?.state === 'ready' && plugin.pid !== pid;
    });
    assert.equal((await served()).fingerprint256, before.fingerprint256);

    await publisher.windUp();
    await monitor.until('all that was sent', (events) => publisher.isComplete(events));
    assert.equal(publisher.connects, 1);
    const { lost, disordered, unexplained } = compare(publisher, monitor.events);
    assert.deepEqual([lost, disordered, unexplained], [[], [], []]);
});

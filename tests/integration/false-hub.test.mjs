// Somebody in the network who poses as the hub hears nothing from us, least of all a token (identity.md T15).
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';

import { Pair, until } from '../harness.mjs';

const run = promisify(execFile);
const PORTS = { identity: 443, 'upstream-amqp': 5671 };
let pair;

before(async () => {
    pair = await Pair.create();
    // From here on it has a token that it would like to show.
    await until('the edge is connected', async () => (await pair.edge.status())?.upstream.connected);
    await pair.hub.stop();
});
after(() => pair.stop());

// A server's certificate for @address by the authority in @ca.
async function certificate(name, address, ca) {
    const file = path.join(pair.dir, name);
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=hub', '-days', '1',
        '-addext', 'basicConstraints=critical,CA:FALSE', '-addext', `subjectAltName=IP:${address}`, '-keyout', `${file}.key`, '-out', `${file}.pem`,
        '-CA', ca.pem, '-CAkey', ca.key]);
    return { cert: await readFile(`${file}.pem`), key: await readFile(`${file}.key`) };
}

// What each plugin said to whoever holds its port: undefined while it has not called.
async function listen(credentials) {
    const heard = {};
    // Whoever calls before may be in the middle of a call that its end cuts off, and that is no word about this server.
    for (const plugin of Object.keys(PORTS)) await pair.edge.ctl('plugin', 'stop', plugin);
    const servers = Object.entries(PORTS).map(([plugin, port]) => {
        const server = tls.createServer(credentials, (socket) => {
            socket.on('error', () => {});
            socket.on('close', () => (heard[plugin] ??= '')); // curl looks at the name after the handshake
            socket.on('data', (data) => (heard[plugin] = (heard[plugin] ?? '') + data.toString('latin1')));
        });
        server.on('tlsClientError', () => (heard[plugin] ??= ''));
        return server.listen(port, pair.init.hub_address);
    });
    await Promise.all(servers.map((server) => once(server, 'listening')));
    for (const plugin of Object.keys(PORTS)) await pair.edge.ctl('plugin', 'start', plugin); // they call at once
    return {
        heard,
        both: () => until('both have called', () => Object.keys(PORTS).every((plugin) => heard[plugin] !== undefined), 60000),
        close: () => servers.forEach((server) => server.close()),
    };
}

const ours = () => ({ pem: pair.init.ca_file, key: path.join(path.dirname(pair.init.edge_config), 'ca.key') });

async function theirs() {
    const file = path.join(pair.dir, 'false-ca');
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=Brink test CA', '-days', '1',
        '-keyout', `${file}.key`, '-out', `${file}.pem`]);
    return { pem: `${file}.pem`, key: `${file}.key` };
}

test('a certificate by an unknown authority', async () => {
    const hub = await listen(await certificate('unknown', pair.init.hub_address, await theirs()));
    await hub.both();
    hub.close();
    assert.deepEqual(hub.heard, { identity: '', 'upstream-amqp': '' });
});

test('a certificate by the right authority for another name', async () => {
    const hub = await listen(await certificate('other-name', pair.init.address, ours()));
    await hub.both();
    hub.close();
    assert.deepEqual(hub.heard, { identity: '', 'upstream-amqp': '' });
});

test('the right certificate: they speak (so the silence above meant something)', async () => {
    const hub = await listen(await certificate('right', pair.init.hub_address, ours()));
    await hub.both();
    hub.close();
    assert.match(hub.heard.identity, /Authorization: SharedAccessSignature/);
    assert.match(hub.heard['upstream-amqp'], /^AMQP/);
});

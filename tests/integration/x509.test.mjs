// Devices with a certificate and no password, with the official SDK: the front hands the chain on, identity decides.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';

import common from 'azure-iot-common';
import device from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';
import mqtt from 'mqtt-packet';

import { Pair, bodyOf, sasToken } from '../harness.mjs';

const { Client, Message } = device;
const run = promisify(execFile);
let pair;
let monitor;
let authority;

before(async () => {
    pair = await Pair.create({ start: false });
    authority = await certificate('Plant CA', { ca: true });
    // The authority above the edge CA is in the bundle: so it is for a user who has but one.
    const bundle = path.join(pair.dir, 'client-authorities.pem');
    await writeFile(bundle, authority.cert + pair.ca);
    await pair.configure('identity', (text) => text.replace(/^settings:.*$/m, `settings:\n  client_ca_file: ${bundle}`));
    pair.hub.start();
    await pair.hub.ready();
    pair.edge.start();
    await pair.edge.ready();
    monitor = pair.monitor();
});
after(() => pair.stop());

let serial = 0;

// A certificate and its key, signed by itself or by @issuer.
async function certificate(name, { issuer, ca = false, usage = 'clientAuth', days = 1 } = {}) {
    const file = path.join(pair.dir, `x509-${++serial}`);
    const extensions = ca ? ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign']
        : ['-addext', 'basicConstraints=critical,CA:FALSE', '-addext', `extendedKeyUsage=${usage}`];
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${name}`, '-days', String(days),
        '-keyout', `${file}.key`, '-out', `${file}.pem`, ...extensions, ...(issuer ? ['-CA', issuer.file, '-CAkey', issuer.keyFile] : [])]);
    const cert = await readFile(`${file}.pem`, 'utf8');
    return { file: `${file}.pem`, keyFile: `${file}.key`, cert, key: await readFile(`${file}.key`, 'utf8') };
}

const sha256 = ({ cert }) => new X509Certificate(cert).fingerprint256.replaceAll(':', '');
const sha1 = ({ cert }) => new X509Certificate(cert).fingerprint.replaceAll(':', '');

// This SDK overlooks GatewayHostName when there is no key: what users do is to name the gateway as the host.
async function open(id, { cert, key }) {
    const client = Client.fromConnectionString(`HostName=${pair.init.hostname};DeviceId=${id};x509=true`, Mqtt);
    client.setRetryPolicy(new common.NoRetry());
    await client.setOptions({ ca: pair.ca, cert, key });
    await client.open();
    return client;
}

async function sends(id, credentials) {
    const client = await open(id, credentials);
    await client.sendEvent(new Message(`from ${id}`));
    await client.close();
    const events = await monitor.until(`one of ${id}`, (all) => all.some((event) => event.device_id === id));
    assert.equal(bodyOf(events.find((event) => event.device_id === id)), `from ${id}`);
}

const refused = (id, credentials) => assert.rejects(open(id, credentials), { name: 'UnauthorizedError' });

test('by thumbprint: SHA-256 and SHA-1, upper and lower case', async (t) => {
    const prints = { 'sha256-upper': sha256, 'sha256-lower': (c) => sha256(c).toLowerCase(), 'sha1-lower': (c) => sha1(c).toLowerCase() };
    for (const [id, print] of Object.entries(prints))
        await t.test(id, async () => {
            const own = await certificate('any name');
            await pair.addDevice(id, '--auth', 'x509-thumbprint', '--thumbprint', print(own));
            await sends(id, own);
        });
});

test('refused: another certificate, none, one of another device, a token in its place', async (t) => {
    const own = await certificate('strict');
    const other = await certificate('strict');
    const bystander = await pair.addDevice('with-a-key');
    await pair.addDevice('strict', '--auth', 'x509-thumbprint', '--thumbprint', sha256(own));
    await sends('strict', own);
    await t.test('another certificate of the same name', () => refused('strict', other));
    await t.test('its certificate for a device that has a key', () => refused('with-a-key', own));
    await t.test('its certificate for a device that nobody knows', () => refused('nobody', own));
    await t.test('no certificate, no password', async () => assert.equal(await rawConnect('strict'), 5));
    await t.test('somebody else\'s key', async () => {
        const token = sasToken(`${pair.init.hub_address}/devices/strict`, bystander.primary_key);
        assert.equal(await rawConnect('strict', { password: token }), 5);
    });
    await t.test('a password decides: its right certificate does not help a wrong token', async () => {
        const token = sasToken(`${pair.init.hub_address}/devices/strict`, bystander.primary_key);
        assert.equal(await rawConnect('strict', { password: token, credentials: own }), 5);
    });
    await t.test('the certificate alone, and the connection is its', async () => assert.equal(await rawConnect('strict', { credentials: own }), 0));
});

test('by authority: the name is the device id, and the authority is the operator\'s', async (t) => {
    const own = await certificate('by-ca', { issuer: authority });
    await pair.addDevice('by-ca', '--auth', 'x509-ca');
    await sends('by-ca', own);
    await t.test('another name', async () => refused('by-ca', await certificate('by-cb', { issuer: authority })));
    await t.test('for servers only', async () => refused('by-ca', await certificate('by-ca', { issuer: authority, usage: 'serverAuth' })));
    await t.test('signed by itself', async () => refused('by-ca', await certificate('by-ca')));
    await t.test('of a stranger\'s authority', async () => refused('by-ca', await certificate('by-ca', { issuer: await certificate('Plant CA', { ca: true }) })));
});

test('T7: the edge CA makes no devices, though it is under an authority that does', async () => {
    const file = path.join(pair.init.edge_config, 'secrets', 'edge-ca');
    const forged = await certificate('by-ca', { issuer: { file: `${file}.pem`, keyFile: `${file}.key` } });
    await refused('by-ca', { ...forged, cert: forged.cert + (await readFile(`${file}.pem`, 'utf8')) });
});

// The code of the CONNACK to a CONNECT with what is given.
async function rawConnect(id, { password, credentials } = {}) {
    const socket = tls.connect({ host: pair.init.address, port: 8883, ca: pair.ca, servername: '', cert: credentials?.cert, key: credentials?.key });
    socket.on('error', () => {});
    socket.on('secureConnect', () => socket.write(mqtt.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 60, clientId: id,
        username: `${pair.init.hub_address}/${id}/?api-version=2021-04-12`, password: password && Buffer.from(password) })));
    const answer = await new Promise((resolve, reject) => {
        socket.once('data', resolve);
        socket.once('close', () => reject(new Error('closed without an answer')));
    });
    socket.destroy();
    return answer[3];
}

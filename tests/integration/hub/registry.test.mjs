// The hub's REST interface as the official service SDK uses it.
import assert from 'node:assert/strict';
import https from 'node:https';
import { after, before, describe, test } from 'node:test';

import iothub from 'azure-iothub';

import { Pair, sasToken } from '../../harness.mjs';
import { trust } from './trust.mjs';

const { Registry } = iothub;
let pair;
let registry;

before(async () => {
    pair = await Pair.create({ start: false });
    pair.hub.start();
    await pair.hub.ready();
    trust(pair.ca);
    registry = Registry.fromConnectionString(pair.init.hub_service_connection_string);
});
after(() => pair.stop());

const named = (name) => (error) => error.name === name || assert.fail(`expected ${name}, found ${error.name}: ${error.message}`);

// What the service SDK does not do: a call with a token of one's own.
async function rest(method, target, { token, body, ifMatch } = {}) {
    const headers = { 'Content-Type': 'application/json' };
    if (token) headers.Authorization = token;
    if (ifMatch) headers['If-Match'] = ifMatch;
    const request = https.request({ host: pair.init.hub_address, method, path: target, headers });
    request.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = await new Promise((resolve, reject) => request.on('response', (r) => resolve([r])).on('error', reject));
    let text = '';
    for await (const chunk of response) text += chunk;
    return { status: response.statusCode, headers: response.headers, text, json: text ? JSON.parse(text) : undefined };
}

describe('devices', () => {
    test('are created with keys of the hub, read, changed and removed', async () => {
        const { responseBody: made } = await registry.create({ deviceId: 'dev#1' });
        assert.equal(made.deviceId, 'dev#1');
        assert.equal(made.status, 'enabled');
        assert.equal(Buffer.from(made.authentication.symmetricKey.primaryKey, 'base64').length, 32);
        assert.notEqual(made.authentication.symmetricKey.primaryKey, made.authentication.symmetricKey.secondaryKey);

        const { responseBody: got } = await registry.get('dev#1');
        assert.deepEqual(got, made);

        const { responseBody: changed } = await registry.update({ ...got, status: 'disabled', statusReason: 'stolen' });
        assert.equal(changed.status, 'disabled');
        assert.equal(changed.statusReason, 'stolen');
        assert.notEqual(changed.etag, made.etag);
        assert.deepEqual(changed.authentication, made.authentication);

        await registry.delete('dev#1');
        await assert.rejects(registry.get('dev#1'), named('DeviceNotFoundError'));
    });

    test('keep the keys that the caller chose', async () => {
        const key = Buffer.alloc(32, 7).toString('base64');
        const { responseBody } = await registry.create({
            deviceId: 'own-keys', authentication: { type: 'sas', symmetricKey: { primaryKey: key, secondaryKey: key } },
        });
        assert.equal(responseBody.authentication.symmetricKey.primaryKey, key);
    });

    test('are listed', async () => {
        await registry.create({ deviceId: 'listed' });
        const { responseBody } = await registry.list();
        assert.ok(responseBody.some((device) => device.deviceId === 'listed'));
        assert.ok(responseBody.some((device) => device.deviceId === 'edge1' && device.capabilities.iotEdge));
    });

    test('that exist, do not, or cannot, get the error of the SDK', async () => {
        await registry.create({ deviceId: 'twice' });
        await assert.rejects(registry.create({ deviceId: 'twice' }), named('DeviceAlreadyExistsError'));
        await assert.rejects(registry.get('nobody'), named('DeviceNotFoundError'));
        await assert.rejects(registry.delete('nobody'), named('DeviceNotFoundError'));
        await assert.rejects(registry.update({ deviceId: 'nobody' }), named('DeviceNotFoundError'));
        await assert.rejects(registry.create({ deviceId: 'bad id' }), named('ArgumentError'));
    });

    test('come and go in bulk', async () => {
        const ids = ['bulk-1', 'bulk-2', 'bulk-3'];
        const added = await registry.addDevices(ids.map((deviceId) => ({ deviceId })));
        assert.equal(added.responseBody.isSuccessful, true);
        const updated = await registry.updateDevices(ids.map((deviceId) => ({ deviceId, status: 'disabled' })), true);
        assert.equal(updated.responseBody.isSuccessful, true);
        assert.equal((await registry.get('bulk-2')).responseBody.status, 'disabled');
        await registry.removeDevices(ids.map((deviceId) => ({ deviceId })), true);
        await assert.rejects(registry.get('bulk-3'), named('DeviceNotFoundError'));
    });
});

describe('modules', () => {
    before(() => registry.create({ deviceId: 'with-modules' }));

    test('are created, read, listed, changed under their etag, and removed', async () => {
        const { responseBody: made } = await registry.addModule({ deviceId: 'with-modules', moduleId: '$cam', managedBy: 'me' });
        assert.equal(made.managedBy, 'me');
        assert.equal(Buffer.from(made.authentication.symmetricKey.primaryKey, 'base64').length, 32);
        assert.deepEqual((await registry.getModule('with-modules', '$cam')).responseBody, made);
        const { responseBody: list } = await registry.getModulesOnDevice('with-modules');
        assert.deepEqual(list.map((module) => module.moduleId), ['$cam']);

        const { responseBody: changed } = await registry.updateModule({ ...made, managedBy: 'you' });
        assert.equal(changed.managedBy, 'you');
        await assert.rejects(registry.updateModule({ ...made, managedBy: 'late' }), named('InvalidEtagError'));
        await registry.removeModule('with-modules', '$cam');
        await assert.rejects(registry.getModule('with-modules', '$cam'));
    });

    test('of an edge device are there from the start, and two that are alike are not made', async () => {
        const { responseBody } = await registry.getModulesOnDevice('edge1');
        assert.deepEqual(responseBody.map((module) => module.moduleId), ['$edgeAgent', '$edgeHub']);
        assert.equal(responseBody[0].authentication.type, 'none');
        await assert.rejects(registry.addModule({ deviceId: 'edge1', moduleId: '$edgeHub' }), named('DeviceAlreadyExistsError'));
        await assert.rejects(registry.addModule({ deviceId: 'nobody', moduleId: 'm' }), named('DeviceNotFoundError'));
    });

    test('are managed by their device with its own key, as the identity service does, and by no other', async () => {
        const { responseBody: device } = await registry.create({ deviceId: 'Self', capabilities: { iotEdge: true } });
        const token = sasToken(`${pair.init.hub_address}/devices/self`, device.authentication.symmetricKey.primaryKey); // lower case
        const path = '/devices/Self/modules/tempSensor?api-version=2017-11-08-preview';
        const made = await rest('PUT', path, { token, body: { moduleId: 'tempSensor', deviceId: 'Self', managedBy: 'IotEdge' } });
        assert.equal(made.status, 200);
        assert.equal(made.json.authentication.type, 'none');
        assert.match(made.json.generationId, /^\d{18}$/);
        const key = Buffer.alloc(32, 9).toString('base64');
        const keyed = await rest('PUT', path, {
            token, ifMatch: '*',
            body: { moduleId: 'tempSensor', deviceId: 'Self',
                authentication: { type: 'sas', symmetricKey: { primaryKey: key, secondaryKey: key } } },
        });
        assert.equal(keyed.status, 200);
        assert.equal(keyed.json.authentication.symmetricKey.primaryKey, key);
        assert.equal((await rest('GET', '/devices/Self/modules', { token })).json.length, 3);
        assert.equal((await rest('GET', '/devices/edge1/modules', { token })).status, 401);
        assert.equal((await rest('GET', '/devices/Self', { token })).status, 401);
        assert.equal((await rest('DELETE', path, { token, ifMatch: '*' })).status, 204);
    });
});

describe('who may', () => {
    const service = (name, key) => `HostName=${pair.init.hub_address};SharedAccessKeyName=${name};SharedAccessKey=${key}`;
    const policyKey = () => /SharedAccessKey=(.*)$/.exec(pair.init.hub_service_connection_string)[1];

    test('a policy does what it is for', async () => {
        const reader = Registry.fromConnectionString(service('registryRead', policyKey()));
        assert.equal((await reader.get('edge1')).responseBody.deviceId, 'edge1');
        await assert.rejects(reader.create({ deviceId: 'no' }), named('UnauthorizedError'));
        await assert.rejects(Registry.fromConnectionString(service('service', policyKey())).get('edge1'), named('UnauthorizedError'));
    });

    test('a wrong key, an unknown policy, and no token are refused in the form of the hub', async () => {
        const wrong = Buffer.alloc(32, 1).toString('base64');
        await assert.rejects(Registry.fromConnectionString(service('iothubowner', wrong)).get('edge1'), named('UnauthorizedError'));
        await assert.rejects(Registry.fromConnectionString(service('nobody', policyKey())).get('edge1'), named('UnauthorizedError'));
        const answer = await rest('GET', '/devices/edge1');
        assert.equal(answer.status, 401);
        assert.equal(answer.headers['iothub-errorcode'], 'IotHubUnauthorizedAccess');
        assert.match(answer.json.Message, /^ErrorCode:IotHubUnauthorizedAccess;/);
    });
});

describe('the scope of an edge device', () => {
    test('holds itself, its children and their modules, page by page, and nobody else', async () => {
        const edge = (await registry.create({ deviceId: 'parent', capabilities: { iotEdge: true } })).responseBody;
        const key = Buffer.alloc(32, 3).toString('base64');
        const hub = (await registry.getModule('parent', '$edgeHub')).responseBody;
        await registry.updateModule({ ...hub, authentication: { type: 'sas', symmetricKey: { primaryKey: key, secondaryKey: key } } });
        for (const id of ['leaf-a', 'leaf-b', 'leaf-c']) await registry.create({ deviceId: id, deviceScope: edge.deviceScope });
        await registry.addModule({ deviceId: 'leaf-b', moduleId: 'm' });
        await registry.create({ deviceId: 'stranger' });

        const encoded = encodeURIComponent(encodeURIComponent('parent')) + '%2Fmodules%2F' + encodeURIComponent(encodeURIComponent('$edgeHub'));
        const token = sasToken(`${pair.init.hub_address}/devices/${decodeURIComponent(encoded)}`, key);
        const base = '/devices/parent/modules/$edgeHub';
        const devices = [], modules = [];
        let continuationLink;
        do {
            const { status, json } = await rest('POST', `${base}/devicesAndModulesInTargetDeviceScope?api-version=2020-06-30-preview`, {
                token, body: { pageSize: 2, continuationLink, authChain: 'parent' },
            });
            assert.equal(status, 200);
            assert.ok('continuationLink' in json);
            assert.ok(json.devices.length <= 2);
            devices.push(...json.devices);
            modules.push(...json.modules);
            continuationLink = json.continuationLink;
        } while (continuationLink);
        assert.deepEqual(devices.map((d) => d.deviceId), ['leaf-a', 'leaf-b', 'leaf-c', 'parent']);
        assert.deepEqual(modules.map((m) => `${m.deviceId}/${m.moduleId}`), ['leaf-b/m', 'parent/$edgeAgent', 'parent/$edgeHub']);
        assert.deepEqual(devices[0].parentScopes, [edge.deviceScope]);
        assert.equal(devices[0].authentication.symmetricKey.primaryKey.length, 44);

        let link = `${base}/devicesAndModulesInDeviceScope?deviceCount=3&continuationToken=&api-version=2018-08-30-preview`;
        let count = 0;
        while (link) {
            const { json } = await rest('GET', link, { token });
            count += json.devices.length;
            link = json.continuationLink;
        }
        assert.equal(count, 4);

        const one = (targetDeviceId, targetModuleId) => rest('POST', `${base}/getDeviceAndModuleOnBehalfOf?api-version=2020-06-30-preview`, {
            token, body: { targetDeviceId, targetModuleId, authChain: 'parent' },
        });
        assert.deepEqual((await one('leaf-b', 'm')).json.modules.map((m) => m.moduleId), ['m']);
        assert.equal((await one('leaf-a')).json.devices.length, 1);
        assert.equal((await one('stranger')).status, 403);
        assert.equal((await one('nobody')).status, 404);
        const old = await rest('GET', `${base}/deviceAndModuleInDeviceScope?targetDeviceId=leaf-b&targetModuleId=m&api-version=2018-08-30-preview`, { token });
        assert.equal(old.json.modules[0].moduleId, 'm');
        assert.equal((await rest('POST', '/devices/edge1/modules/$edgeHub/getDeviceAndModuleOnBehalfOf', { token, body: {} })).status, 401);
    });
});

test('the registry is there again after the hub was killed', async () => {
    const before = (await registry.get('edge1')).responseBody;
    await pair.hub.killAll();
    pair.hub.start();
    await pair.hub.ready();
    assert.deepEqual((await registry.get('edge1')).responseBody, before);
});

// Registers devices with a local hub and prints what brink-bench-mqtt --password-file reads: a line for each, with client id,
// user name and password.    node clients.mjs HUB_CONFIG EDGE_DEVICE_ID COUNT > FILE
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { program, sasToken } from '../harness.mjs';

const [config, parent, count] = process.argv.slice(2);
if (!(Number(count) > 0)) {
    console.error('usage: clients.mjs HUB_CONFIG EDGE_DEVICE_ID COUNT');
    process.exit(64);
}

for (let i = 0; i < Number(count); i++) {
    const id = `bench-${i}`;
    const { stdout } = await promisify(execFile)(program('brinkctl'), ['hub', 'device', 'add', id, '--parent', parent, '--config', config, '--json']);
    const device = JSON.parse(stdout);
    const hub = /HostName=([^;]+)/.exec(device.connection_string)[1];
    console.log([id, `${hub}/${id}/?api-version=2021-04-12`, sasToken(`${hub}/devices/${id}`, device.primary_key, 86400)].join('\t'));
}

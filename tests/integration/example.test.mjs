// The example plugin, added to a running configuration as docs/writing-a-plugin.md says.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { Pair, until } from '../harness.mjs';

test('the light follows the connection to the hub', async () => {
    const pair = await Pair.create({ start: false });
    try {
        const led = path.join(pair.dir, 'led');
        await writeFile(path.join(pair.init.edge_config, 'plugins.d', 'example.yaml'),
            `role: uplink-led\nexec: brink-example\nsettings:\n  file: ${led}\n`);
        pair.edge.start();
        await pair.edge.ready();
        const shows = (text) => until(`the light shows ${text}`, async () => (await readFile(led, 'utf8')) === text);
        await shows('0');
        pair.hub.start();
        await pair.hub.ready();
        await shows('1');
        await pair.hub.ctl('hub', 'offline');
        await shows('0');
        await pair.hub.ctl('hub', 'online');
        await shows('1');
        const upstream = await pair.edge.plugin('upstream-amqp');
        process.kill(upstream.pid, 'SIGKILL'); // a new announcer: the example asks it
        await until('upstream again', async () => (await pair.edge.plugin('upstream-amqp'))?.generation > upstream.generation);
        await shows('1');
        assert.equal((await pair.edge.plugin('example')).generation, 1);
    } finally {
        await pair.stop();
    }
});

test('a bad setting is refused with file, line, key and what was expected', async () => {
    const pair = await Pair.create({ start: false });
    try {
        await writeFile(path.join(pair.init.edge_config, 'plugins.d', 'example.yaml'), 'role: uplink-led\nexec: brink-example\nsettings:\n  fiel: /tmp/x\n');
        const { code, stderr, stdout } = await pair.edge.ctlRaw('config', 'check');
        assert.equal(code, 1);
        assert.match(stderr + stdout, /example\.yaml/);
        assert.match(stderr + stdout, /settings\.(file|fiel)/);
    } finally {
        await pair.stop();
    }
});

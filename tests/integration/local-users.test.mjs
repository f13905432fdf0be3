// What another local user can do: nothing.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { Pair, program, until } from '../harness.mjs';

const run = promisify(execFile);
const nobody = { uid: 65534, gid: 65534 };
let pair;

before(async () => (pair = await Pair.create()));
after(() => pair.stop());

test('nobody reads keys, settings with secrets, the store, or talks to a socket', async () => {
    await chmod(pair.dir, 0o755);
    const script = `
        find "$1" -type f 2>/dev/null | while read -r f; do cat "$f" >/dev/null 2>&1 && echo "$f"; done
        find "$1" -type s -writable 2>/dev/null || :`;
    const { stdout } = await run('sh', ['-c', script, 'sh', path.dirname(pair.init.edge_config)], nobody);
    const reachable = stdout.split('\n').filter((line) => line && !/\.(yaml|pem)$|\/routes\.json$/.test(line));
    assert.deepEqual(reachable, []);
});

test('the bus refuses a foreign uid even where the folders would let it in', async () => {
    const runDir = path.join(pair.init.edge_config, 'run');
    // An operator's mistake: everything opened up.
    await run('chmod', ['-R', 'a+rwX', runDir]);
    await chmod(pair.dir, 0o755);
    await chmod(path.dirname(pair.init.edge_config), 0o755);
    await chmod(pair.init.edge_config, 0o755);
    await run('chmod', ['-R', 'a+rX', pair.init.edge_config]).catch(() => {});
    const asked = run(program('brinkctl'), ['queues', '--config', pair.init.edge_config, '--json'], nobody);
    await assert.rejects(asked);
    await until('the refusal is logged', () => /stranger on the bus refused/.test(pair.edge.output));
    const answered = await pair.edge.ctl('queues');
    assert.ok(Array.isArray(answered)); // the operator goes on
});

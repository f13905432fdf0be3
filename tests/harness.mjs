// One harness for all tests with real processes: a hub and an edge in an empty folder, on loopback addresses of their own,
// made by `brinkctl init` as a user would make them.
import { execFile, spawn } from 'node:child_process';
import { createHmac, randomInt } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const build = process.env.BRINK_BUILD ?? new URL('../build', import.meta.url).pathname;
const run = promisify(execFile);

export const program = (name) => path.join(build, name);

// Asks until it is so. What is awaited has no event of its own; the limit is a failure, never a pace.
export async function until(what, probe, limitMs = 30000) {
    const end = Date.now() + limitMs;
    for (;;) {
        const value = await probe();
        if (value) return value;
        if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 25));
    }
}

// One brinkd with its plugins.
class Node {
    constructor(config, log) {
        this.config = config;
        this.log = log;
        this.output = '';
    }

    start() {
        this.process = spawn(program('brinkd'), ['--config', this.config], { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
        this.process.stderr.setEncoding('utf8').on('data', (text) => (this.output += text));
        this.exited = once(this.process, 'exit');
        return this;
    }

    async ctl(...args) {
        const { stdout } = await run(program('brinkctl'), [...args, '--config', this.config, '--json'], { maxBuffer: 64 << 20 });
        return stdout.trim() === '' ? undefined : JSON.parse(stdout);
    }

    // Exit status and texts, for commands that are to fail.
    async ctlRaw(...args) {
        try {
            return { code: 0, ...(await run(program('brinkctl'), [...args, '--config', this.config])) };
        } catch (error) {
            return { code: error.code, stdout: error.stdout, stderr: error.stderr };
        }
    }

    async status() {
        try {
            return await this.ctl('status');
        } catch {
            return undefined;
        }
    }

    async plugin(name) {
        return (await this.status())?.plugins.find((plugin) => plugin.name === name);
    }

    ready(limitMs) {
        return until(`all plugins of ${this.config} ready\n${this.output.slice(-4000)}`, async () => {
            const status = await this.status();
            return status?.plugins.length > 0 && status.plugins.every((plugin) => plugin.state === 'ready') && status;
        }, limitMs);
    }

    async pids() {
        return Object.fromEntries((await this.status()).plugins.map((plugin) => [plugin.name, plugin.pid]));
    }

    // Everything at once, as a power cut would: the plugins are in the supervisor's process group.
    async killAll() {
        process.kill(-this.process.pid, 'SIGKILL');
        await this.exited;
    }

    async killSupervisor() {
        this.process.kill('SIGKILL');
        await this.exited;
    }

    async stop() {
        if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) {
            try {
                process.kill(-this.process.pid, 'SIGKILL'); // plugins that outlived a killed supervisor
            } catch { /* none */ }
            return;
        }
        this.process.kill('SIGTERM');
        await this.exited;
    }
}

// Telemetry as `brinkctl hub monitor` shows it, from the first that the hub keeps.
export class Monitor extends EventEmitter {
    constructor(config, [command, ...args] = [program('brinkctl')]) {
        super();
        this.events = [];
        this.process = spawn(command, [...args, 'hub', 'monitor', '--json', '--config', config], { stdio: ['ignore', 'pipe', 'inherit'] });
        createInterface({ input: this.process.stdout }).on('line', (line) => {
            if (this.stopped) return; // killed in the middle of a line
            this.events.push(JSON.parse(line));
            this.emit('event');
        });
    }

    async until(what, condition, limitMs = 60000) {
        const abort = AbortSignal.timeout(limitMs);
        while (!condition(this.events)) {
            try {
                await once(this, 'event', { signal: abort });
            } catch {
                throw new Error(`not within ${limitMs} ms: ${what}; ${this.events.length} events arrived`);
            }
        }
        return this.events;
    }

    count(n, limitMs) {
        return this.until(`${n} messages at the hub`, (events) => events.length >= n, limitMs);
    }

    stop() {
        this.stopped = true;
        this.process.kill();
    }
}

export class Pair {
    static async create({ settings = {}, start = true } = {}) {
        const pair = new Pair();
        const net = `127.${randomInt(64, 250)}.${randomInt(1, 250)}`;
        pair.dir = await mkdtemp(path.join(tmpdir(), 'brink-test-'));
        const { stdout } = await run(program('brinkctl'), ['init', '--dir', path.join(pair.dir, 'd'), '--address', `${net}.1`,
            '--hostname', `${net}.1`, '--hub-address', `${net}.2`, '--device-id', 'edge1', '--json']);
        pair.init = JSON.parse(stdout);
        pair.ca = await readFile(pair.init.ca_file, 'utf8');
        pair.edge = new Node(pair.init.edge_config);
        pair.hub = new Node(pair.init.hub_config);
        for (const [plugin, change] of Object.entries(settings)) await pair.configure(plugin, change);
        if (start) {
            pair.hub.start();
            await pair.hub.ready();
            pair.edge.start();
            await pair.edge.ready();
        }
        return pair;
    }

    // Edits a file of the edge's plugins.d: @change gets its text and gives the new one.
    async configure(plugin, change) {
        const file = path.join(this.init.edge_config, 'plugins.d', `${plugin}.yaml`);
        await writeFile(file, change(await readFile(file, 'utf8')));
    }

    // The deployment's routes, as a document of desired properties of $edgeHub.
    writeRoutes(desired) {
        return writeFile(path.join(this.init.edge_config, 'routes.json'), JSON.stringify(desired));
    }

    // The same, and they are in force when it returns.
    async routes(desired) {
        await this.writeRoutes(desired);
        const names = Object.keys(desired.routes).sort().join();
        await until('the routes are in force', async () => (await this.edge.ctl('routes')).map((route) => route.name).sort().join() === names);
    }

    // A device under this edge, known to the edge before it returns (a full refresh is not awaited: login asks for it).
    addDevice(id, ...options) {
        return this.hub.ctl('hub', 'device', 'add', id, '--parent', this.init.device_id, ...options);
    }

    connectionString(device) {
        return `${device.connection_string};GatewayHostName=${this.init.hostname}`;
    }

    monitor() {
        this.watching = new Monitor(this.init.hub_config);
        return this.watching;
    }

    async stop() {
        this.watching?.stop();
        await this.edge.stop();
        await this.hub.stop();
        await rm(this.dir, { recursive: true, force: true });
    }
}

// A SAS token as the Node SDK spells it.
export function sasToken(resource, key, seconds = 3600) {
    const sr = encodeURIComponent(resource);
    const se = Math.floor(Date.now() / 1000) + seconds;
    const sig = createHmac('sha256', Buffer.from(key, 'base64')).update(`${sr}\n${se}`).digest('base64');
    return `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(sig)}&se=${se}`;
}

export const bodyOf = (event) => (typeof event.body === 'string' ? event.body : JSON.stringify(event.body));

// The custody ledger: whatever was accepted is accounted for, in all and for each priority.
export function balance(queue) {
    for (const account of [queue, ...queue.priorities]) {
        const { accepted, delivered, expired, dropped, rejected, queued } = account;
        const sum = delivered + expired + dropped + rejected + queued;
        if (accepted !== sum) throw new Error(`${queue.name}: accepted ${accepted} is not ${sum}: ${JSON.stringify(account)}`);
    }
}

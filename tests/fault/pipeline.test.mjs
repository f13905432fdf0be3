// sensors -> filter -> aggregator -> hub, all of them official SDK clients, by routes with conditions on properties and bodies,
// while every process of the edge is killed and hung in turn. Then what the sensors were told is compared with what arrived at
// each stage, and with the store's own account.
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { after, before, test } from 'node:test';

import { Pair, bodyOf, balance, until } from '../harness.mjs';

const SENSORS = 4;
const COUNT = 50000 / SENSORS;
const PLUGINS = ['mqtt-listener', 'router', 'store', 'upstream-amqp', 'identity', 'front'];
const input = (module, name) => `BrokeredEndpoint("/modules/${module}/inputs/${name}")`;
const ROUTES = {
    schemaVersion: '1.1',
    routes: {
        ...Object.fromEntries(Array.from({ length: SENSORS }, (_, s) => [`readings-${s}`, {
            route: `FROM /messages/modules/sensor${s}/outputs/out WHERE kind = 'reading' INTO ${input('filter', 'in')}`, priority: 5,
        }])),
        alarms: { route: `FROM /messages/* WHERE is_number($body.t) AND $body.t > 97 AND kind = 'reading' INTO ${input('filter', 'alarm')}`, priority: 0 },
        hot: `FROM /messages/modules/filter/outputs/out WHERE $body.t >= 50 INTO ${input('aggregator', 'in')}`,
        up: { route: 'FROM /messages/modules/filter/outputs/alarm INTO $upstream', priority: 0 },
        sums: 'FROM /messages/modules/aggregator/* INTO $upstream',
    },
    storeAndForwardConfiguration: { timeToLiveSecs: 7200 },
};

let pair;
let monitor;
const stages = {};
let hits = 0;

// A stage, and what it reports.
class Stage extends EventEmitter {
    constructor(job) {
        super();
        this.sent = 0;
        this.process = fork(new URL('pipeline-module.mjs', import.meta.url), { stdio: 'inherit' });
        this.process.on('message', (message) => {
            if (message.sent) this.sent += message.sent;
            for (const key of Object.keys(message)) this.emit(key, message[key]);
            this.emit('any');
        });
        this.process.send(job);
    }

    async ask(question) {
        const answer = once(this, 'received');
        this.process.send({ ask: true, ...question });
        return (await answer)[0];
    }

    stop() {
        this.process.kill();
    }
}

before(async () => {
    pair = await Pair.create();
    await pair.routes(ROUTES);
    monitor = pair.monitor();
    const add = async (name) => pair.connectionString(await pair.hub.ctl('hub', 'module', 'add', 'edge1', name));
    const sensors = [];
    for (let s = 0; s < SENSORS; s++) sensors.push({ name: `sensor${s}`, connectionString: await add(`sensor${s}`) });
    for (const role of ['filter', 'aggregator']) {
        stages[role] = new Stage({ role, ca: pair.ca, connectionString: await add(role) });
        await once(stages[role], 'ready');
    }
    stages.sensors = new Stage({ role: 'sensors', ca: pair.ca, sensors, count: COUNT });
});
after(async () => {
    Object.values(stages).forEach((stage) => stage.stop());
    await pair.stop();
});

const temperature = (s, n) => (n * 7919 + s) % 100;
const numbers = (s, wanted) => Array.from({ length: COUNT }, (_, i) => i + 1).filter((n) => n % 5 !== 0 && wanted(temperature(s, n)));

// Nothing lost, and each for the first time in order; a repeat is what was under way when something was killed.
function check(what, s, arrived, expected) {
    const seen = new Set();
    let last = 0;
    for (const n of arrived) {
        if (seen.has(n)) continue;
        assert.ok(n > last, `${what}: ${n} of sensor${s} came after ${last}`);
        last = n;
        seen.add(n);
    }
    assert.deepEqual([...seen], expected, `${what} of sensor${s}`);
    return arrived.length - seen.size;
}

async function hit(name, signal) {
    hits++;
    const { pid, generation } = await pair.edge.plugin(name);
    process.kill(pid, signal);
    await until(`${name} again after ${signal}`, async () => {
        const now = await pair.edge.plugin(name);
        return now?.state === 'ready' && now.generation > generation;
    }, 30000);
}

test('50,000 messages while everything is killed in turn', async () => {
    const done = once(stages.sensors, 'done');
    const all = SENSORS * COUNT;
    const plan = [...PLUGINS, ...PLUGINS, ...PLUGINS].map((name) => [name, 'SIGKILL']);
    plan.splice(6, 0, ['store', 'SIGSTOP']);
    plan.splice(13, 0, ['mqtt-listener', 'SIGSTOP']);
    for (const [i, [name, signal]] of plan.entries()) {
        const mark = Math.floor((all * (i + 0.5)) / plan.length);
        while (stages.sensors.sent < mark) await once(stages.sensors, 'any', { signal: AbortSignal.timeout(120000) });
        await hit(name, signal);
    }
    await done;
    for (const name of ['modules/filter/inputs/in', 'modules/filter/inputs/alarm', 'modules/aggregator/inputs/in']) {
        await until(`${name} is empty`, async () => (await pair.edge.ctl('queues')).find((q) => q.name === name)?.depth === 0, 120000);
    }
});

let filtered;
let aggregated;

test('at each stage: nothing lost, in order', async (t) => {
    const expected = Array.from({ length: SENSORS }, (_, s) => numbers(s, (temp) => temp >= 50).length).reduce((a, b) => a + b);
    await until('the aggregator has all', async () => new Set((aggregated = await stages.aggregator.ask()).map(String)).size >= expected, 120000);
    await stages.aggregator.ask({ flush: true });
    filtered = await stages.filter.ask();
    let repeats = 0;
    for (let s = 0; s < SENSORS; s++) {
        const of = (list) => list.filter(([name]) => name === `sensor${s}`).map(([, n]) => n);
        repeats += check('reading at the filter', s, of(filtered.in), numbers(s, () => true));
        repeats += check('alarm at the filter', s, of(filtered.alarm), numbers(s, (temp) => temp > 97));
        repeats += check('reading at the aggregator', s, of(aggregated), numbers(s, (temp) => temp >= 50));
    }
    assert.ok(repeats <= hits * 64, `${repeats} came again`); // three modules, each with a window of 16, and what SDKs send again
    t.diagnostic(`${repeats} of ${filtered.in.length + filtered.alarm.length + aggregated.length} came again`);
});

test('at the hub: every alarm and every sum, in order', async () => {
    const of = (events, module, s) => events.filter((event) => event.module_id === module).map((event) => JSON.parse(bodyOf(event))).filter((body) => body.s === `sensor${s}`);
    const sums = (events, s) => of(events, 'aggregator', s).flatMap((body) => body.numbers);
    const alarms = (events, s) => of(events, 'filter', s).map((body) => body.n);
    for (let s = 0; s < SENSORS; s++) {
        const [readings, hot] = [numbers(s, (temp) => temp >= 50), numbers(s, (temp) => temp > 97)];
        await monitor.until(`all of sensor${s}`, (events) => new Set(sums(events, s)).size >= readings.length && new Set(alarms(events, s)).size >= hot.length, 120000);
        check('reading in the sums', s, sums(monitor.events, s), readings);
        check('alarm at the hub', s, alarms(monitor.events, s), hot);
    }
});

test('the account: what was accepted was delivered, and is what was seen', async () => {
    await until('all is delivered', async () => (await pair.edge.ctl('queues')).every((queue) => queue.depth === 0), 60000);
    const queues = Object.fromEntries((await pair.edge.ctl('queues')).map((queue) => [queue.name, queue]));
    const seen = {
        'modules/filter/inputs/in': filtered.in, 'modules/filter/inputs/alarm': filtered.alarm, 'modules/aggregator/inputs/in': aggregated,
    };
    for (const [name, list] of Object.entries(seen)) {
        const queue = queues[name];
        balance(queue);
        assert.equal(queue.delivered, queue.accepted, name);
        assert.ok(queue.accepted >= new Set(list.map(String)).size, `${name}: fewer accepted than seen`);
        assert.ok(list.length >= queue.delivered, `${name}: more delivered than seen`);
    }
    balance(queues.$upstream);
    assert.deepEqual(queues['modules/filter/inputs/in'].priorities.map((p) => p.priority), [5]);
    assert.deepEqual(queues.$upstream.priorities.map((p) => p.priority), [0, 2000000000]);
});

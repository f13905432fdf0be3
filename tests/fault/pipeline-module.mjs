// One stage of the pipeline in a process of its own: node pipeline-module.mjs ROLE, the rest by messages of its parent.
// All of them are the official SDK, unmodified. A lane is what has one order; in each lane one message is under way.
import { once } from 'node:events';

import device from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';

const { Message, ModuleClient } = device;
const [job] = await once(process, 'message');
const AGGREGATE = 10;

// The SDK gives up after a connection that was reset (as one is whose process was killed), says so, and leaves the rest to the
// application: one that only waits for input would wait for ever.
async function reopen(client) {
    for (;;) {
        try {
            return await client.open();
        } catch {
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
    }
}

async function connect(connectionString, onInput) {
    const client = ModuleClient.fromConnectionString(connectionString, Mqtt);
    await client.setOptions({ ca: job.ca });
    if (onInput) {
        client.on('inputMessage', (input, message) => {
            client.complete(message, () => {});
            onInput(input, JSON.parse(message.data.toString()), message);
        });
    }
    client.on('disconnect', () => reopen(client));
    await client.open();
    return client;
}

function json(body, properties) {
    const message = new Message(JSON.stringify(body));
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
    return message;
}

const report = (what) => process.send(what);

// Each lane sends what is put into it one by one.
class Lanes {
    constructor(send) {
        this.send = send;
        this.lanes = new Map();
    }

    put(lane, item) {
        if (!this.lanes.has(lane)) this.lanes.set(lane, { items: [], busy: false });
        const queue = this.lanes.get(lane);
        queue.items.push(item);
        if (!queue.busy) this.run(queue);
    }

    async run(queue) {
        queue.busy = true;
        while (queue.items.length > 0) await this.send(queue.items.shift());
        queue.busy = false;
    }
}

const roles = {
    async sensors() {
        await Promise.all(job.sensors.map(async ({ name, connectionString }, s) => {
            const client = await connect(connectionString);
            for (let n = 1; n <= job.count; n++) {
                const t = (n * 7919 + s) % 100;
                await client.sendOutputEvent('out', json({ s: name, n, t }, { kind: n % 5 === 0 ? 'noise' : 'reading' }));
                if (n % 100 === 0) report({ sent: 100 });
            }
            await client.close();
        }));
        report({ done: true });
    },

    async filter() {
        const received = { in: [], alarm: [] };
        const lanes = new Lanes(({ client, input, body }) => client.sendOutputEvent(input === 'alarm' ? 'alarm' : 'out', json(body, {})));
        const client = await connect(job.connectionString, (input, body) => {
            received[input].push([body.s, body.n]);
            lanes.put(`${input} ${body.s}`, { client, input, body });
        });
        report({ ready: true });
        process.on('message', ({ ask }) => ask && report({ received }));
    },

    async aggregator() {
        const received = [];
        const open = new Map(); // by sensor
        const lanes = new Lanes(({ client, body }) => client.sendOutputEvent('sum', json(body, {})));
        const client = await connect(job.connectionString, (input, { s, n }) => {
            received.push([s, n]);
            if (!open.has(s)) open.set(s, []);
            open.get(s).push(n);
            if (open.get(s).length < AGGREGATE) return;
            lanes.put(s, { client, body: { s, numbers: open.get(s) } });
            open.set(s, []);
        });
        report({ ready: true });
        process.on('message', ({ ask, flush }) => {
            if (flush) for (const [s, numbers] of open) if (numbers.length > 0) lanes.put(s, { client, body: { s, numbers: open.get(s) } }), open.set(s, []);
            if (ask) report({ received });
        });
    },
};

process.on('disconnect', () => process.exit(0));
await roles[job.role]();

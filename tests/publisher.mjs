// A QoS 1 publisher that never gives up, as the SDKs are in sum: it keeps a window of unacknowledged publishes, and after a
// lost connection sends them again in order before it goes on. It knows exactly what was acknowledged and what it re-sent.
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import tls from 'node:tls';

import mqtt from 'mqtt-packet';

import { sasToken } from './harness.mjs';

export class Publisher extends EventEmitter {
    constructor({ host, hub, deviceId, key, ca, window = 20, total = Infinity, payload = 64, random = false }) {
        super();
        Object.assign(this, { host, hub, deviceId, key, ca, window, total, payload, random });
        this.next = 1; // the next number to publish
        this.unacked = []; // { n, sent }
        this.acked = new Set();
        this.resent = new Set();
        this.connects = 0;
        this.refused = 0;
        this.stopped = false;
        this.finished = new Promise((resolve) => (this.finish = resolve));
    }

    start() {
        this.connect();
        return this;
    }

    // Further ones, after it finished.
    goOn(total) {
        Object.assign(this, { total, stopped: false });
        this.finished = new Promise((resolve) => (this.finish = resolve));
        return this.start();
    }

    connect() {
        const socket = tls.connect({ host: this.host, port: 8883, ca: this.ca, servername: '' });
        const parser = mqtt.parser();
        this.socket = socket;
        this.connected = false;
        socket.on('error', () => {});
        socket.on('close', () => {
            this.connected = false;
            if (!this.stopped) setTimeout(() => this.connect(), 20 + Math.random() * 80);
        });
        socket.on('secureConnect', () => socket.write(mqtt.generate({
            cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: false, keepalive: 30, clientId: this.deviceId,
            username: `${this.hub}/${this.deviceId}/?api-version=2021-04-12`,
            password: Buffer.from(sasToken(`${this.hub}/devices/${this.deviceId}`, this.key)),
        })));
        socket.on('data', (data) => parser.parse(data));
        parser.on('packet', (packet) => this.take(packet));
    }

    take(packet) {
        if (packet.cmd === 'connack') {
            if (packet.returnCode !== 0) {
                this.refused++;
                this.socket.destroy();
                return;
            }
            this.connects++;
            this.connected = true;
            this.emit('connected');
            for (const entry of this.unacked) this.send(entry);
            this.fill();
        } else if (packet.cmd === 'puback') {
            // MQTT-4.6.0: acks come in the order of the publishes.
            const first = this.unacked[0];
            if (!first || first.id !== packet.messageId)
                throw new Error(`${this.deviceId}: PUBACK ${packet.messageId} out of order, expected ${first?.id}`);
            this.unacked.shift();
            this.acked.add(first.n);
            this.emit('acked', first.n);
            this.fill();
        }
    }

    send(entry) {
        if (entry.sent) this.resent.add(entry.n);
        entry.sent = true;
        entry.id = (entry.n % 65535) + 1;
        this.socket.write(mqtt.generate({
            cmd: 'publish', qos: 1, messageId: entry.id, dup: false, retain: false,
            topic: `devices/${this.deviceId}/messages/events/`,
            payload: JSON.stringify({ n: entry.n, pad: this.pad() }),
        }));
    }

    // What does not compress weighs as much on the disk.
    pad() {
        return this.random ? randomBytes(Math.ceil(this.payload * 0.75)).toString('base64') : 'x'.repeat(this.payload);
    }

    fill() {
        while (this.connected && this.unacked.length < this.window && this.next <= this.total) {
            const entry = { n: this.next++, sent: false };
            this.unacked.push(entry);
            this.send(entry);
        }
        if (this.unacked.length === 0 && this.next > this.total) {
            this.stopped = true;
            this.socket.end();
            this.finish();
        }
    }

    // Has the last one arrived? Cheap: looks from the end. What else is missing, compare() tells.
    isComplete(events) {
        for (let i = events.length - 1; i >= 0; i--)
            if (events[i].device_id === this.deviceId) return numberOf(events[i]) === this.total;
        return this.total === 0;
    }

    // At once, whatever is under way.
    stop() {
        this.stopped = true;
        this.socket?.destroy();
    }

    // No new ones; finished resolves when all that were sent are acknowledged.
    windUp() {
        this.total = this.next - 1;
        if (this.connected) this.fill();
        return this.finished;
    }
}

const numberOf = (event) => (typeof event.body === 'string' ? JSON.parse(event.body) : event.body).n;

// What arrived at the hub against what was acknowledged: nothing lost, order kept, repeats only where they are explained.
// @mayRepeat: messages in flight to the hub when that connection or its process was cut may come twice.
export function compare(publisher, events, { mayRepeat = false } = {}) {
    const numbers = events.filter((event) => event.device_id === publisher.deviceId)
        .map(numberOf);
    const seen = new Set();
    let last = 0;
    const repeated = new Set();
    const disordered = [];
    for (const n of numbers) {
        if (seen.has(n)) {
            repeated.add(n);
            continue;
        }
        if (n < last) disordered.push([last, n]);
        last = n;
        seen.add(n);
    }
    const lost = [...publisher.acked].filter((n) => !seen.has(n));
    const unexplained = mayRepeat ? [] : [...repeated].filter((n) => !publisher.resent.has(n));
    return { arrived: numbers.length, lost, disordered, repeated: repeated.size, unexplained };
}

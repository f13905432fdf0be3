// A machine for tests: Debian with systemd as PID 1, in a container of an engine of its own. All of it is made here, from the
// packages of etc/packages.sh and this machine's apt sources; all of it ends with this process, however that ends.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { access, constants, mkdir, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

import { program, until } from './harness.mjs';

const run = promisify(execFile);
const build = path.dirname(program('brinkd'));
const MEGA = 1 << 20;

const NEEDED = { mmdebstrap: 'mmdebstrap', dockerd: 'docker.io', docker: 'docker.io', unshare: 'util-linux', setpriv: 'util-linux' };

// In namespaces of its own, of mounts and processes: what it leaves behind goes with its first process, and that goes with this one.
const CONTAINED = ['setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];

// The engine's view of cgroups is version 2, whatever the machine's is, and begins at a group of its own.
const ENGINE = `set -e
case $1 in
outer)
    mkdir cgroup
    mount -t cgroup2 cgroup2 cgroup
    mkdir "cgroup/$2"
    echo 0 >"cgroup/$2/cgroup.procs"
    exec unshare --mount --cgroup sh engine.sh inner ;;
inner)
    mkdir -p /etc/docker
    mount -t tmpfs tmpfs /etc/docker # what an engine has that is already there
    mount -t tmpfs tmpfs /run
    umount -R /sys/fs/cgroup 2>/dev/null || :
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir /sys/fs/cgroup/engine
    echo 0 >/sys/fs/cgroup/engine/cgroup.procs
    echo {} >engine.json
    exec dockerd --config-file "$PWD/engine.json" --data-root "$PWD/data" --exec-root "$PWD/exec" --pidfile "$PWD/pid" --host "unix://$PWD/socket" \\
        --iptables=false --ip6tables=false --bridge=none ;;
tidy)
    [ -d cgroup ] || exit 0
    mount -t cgroup2 cgroup2 cgroup
    [ ! -d "cgroup/$2" ] || find "cgroup/$2" -depth -type d -exec rmdir {} + ;;
esac
`;

async function programs() {
    if (process.getuid() !== 0) throw new Error('a machine with systemd needs root: namespaces, mounts');
    for (const [name, debian] of Object.entries(NEEDED))
        await run('sh', ['-c', `command -v ${name}`]).catch(() => {
            throw new Error(`a machine with systemd needs ${name} (Debian package ${debian})`);
        });
    await run('unshare', ['--mount', '--pid', '--fork', '--mount-proc', '--cgroup', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).catch((error) => {
        throw new Error(`a machine with systemd needs mount, process and cgroup namespaces, and to mount in them: ${error.stderr}`);
    });
}

// Which Debian packages hold the shared libraries that the programs of the build were linked to.
async function libraries() {
    const built = (await readdir(build)).filter((name) => /^brink/.test(name)).map((name) => path.join(build, name));
    const { stdout } = await run('ldd', built);
    const names = new Set([...stdout.matchAll(/=> (\S+)/g)].map((match) => `*/${match[1].split('/').slice(-2).join('/')}`));
    const owners = (await run('dpkg-query', ['-S', ...names])).stdout;
    return [...new Set([...owners.matchAll(/^([^:,\s]+)/gm)].map((match) => match[1]))];
}

// Debian only: what else somebody has among their sources may not be there for a second root.
async function aptSources() {
    const format = 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)';
    const ask = (...filter) => run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages', ...filter]);
    return (await ask('Origin: Debian')).stdout || (await ask()).stdout;
}

export class Machine {
    static async create() {
        await programs();
        const machine = new Machine();
        machine.dir = mkdtempSync(path.join(tmpdir(), 'brink-machine-'));
        machine.group = path.basename(machine.dir);
        machine.processes = [];
        machine.onExit = () => machine.discard();
        machine.onSignal = () => process.exit(130);
        process.once('exit', machine.onExit);
        for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, machine.onSignal);
        try {
            await Promise.all([machine.makeRoot(), machine.startEngine()]);
            await machine.boot();
        } catch (error) {
            machine.discard();
            throw error;
        }
        return machine;
    }

    file(name) {
        return path.join(this.dir, name);
    }

    // A process that cannot outlive this one, nor reach out of the machine's folder by what it mounts, kills and forgets.
    contain(name, ...command) {
        const log = openSync(this.file(`${name}.log`), 'w');
        const child = spawn(CONTAINED[0], [...CONTAINED.slice(1), ...command],
            { cwd: this.dir, env: { ...process.env, TMPDIR: this.dir }, stdio: ['ignore', log, log], detached: true });
        closeSync(log);
        this.processes.push(child);
        return child;
    }

    words(name) {
        return readFileSync(this.file(`${name}.log`), 'utf8').slice(-4000);
    }

    // With what apt is told here, proxies for instance; without what nobody reads.
    async makeRoot() {
        const release = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
        const apt = (await run('apt-config', ['dump'])).stdout.split('\n');
        writeFileSync(this.file('sources.list'), await aptSources());
        writeFileSync(this.file('apt.conf'), apt.filter((line) => /^Acquire::(https?|Check-|Force|Retries).* ".+";$/.test(line)).join('\n'));
        const packages = ['systemd', 'systemd-sysv', 'dbus', ...await libraries()];
        const leftOut = ['doc', 'man', 'locale', 'info'].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
        const making = this.contain('mmdebstrap', 'mmdebstrap', '--quiet', '--mode=root', '--variant=essential', `--include=${packages.join()}`,
            '--dpkgopt=force-unsafe-io', ...leftOut, `--aptopt=${this.file('apt.conf')}`, release, 'root.tar', 'sources.list');
        const [code] = await once(making, 'exit');
        if (code !== 0) throw new Error(`mmdebstrap ended with status ${code}\n${this.words('mmdebstrap')}`);
    }

    async startEngine() {
        writeFileSync(this.file('engine.sh'), ENGINE);
        const engine = this.contain('engine', 'sh', 'engine.sh', 'outer', this.group);
        try {
            await until('the container engine answers', async () => {
                if (engine.exitCode !== null) throw new Error(`the container engine ended with status ${engine.exitCode}`);
                return access(this.file('socket'), constants.W_OK).then(() => this.docker('version')).catch(() => false);
            });
        } catch (error) {
            throw new Error(`${error.message}\n${this.words('engine')}`);
        }
    }

    get environment() {
        return { ...process.env, DOCKER_HOST: `unix://${this.file('socket')}`, DOCKER_CONFIG: this.dir };
    }

    async docker(...args) {
        return (await run('docker', args, { env: this.environment, maxBuffer: 64 * MEGA })).stdout;
    }

    // systemd mounts and makes cgroups. The network is this machine's: tests connect to loopback addresses.
    async boot() {
        await this.docker('import', this.file('root.tar'), 'machine');
        rmSync(this.file('root.tar'));
        await this.docker('run', '--detach', '--name', 'machine', '--cgroupns', 'private', '--cap-add', 'SYS_ADMIN',
            '--security-opt', 'seccomp=unconfined', '--security-opt', 'apparmor=unconfined', '--tmpfs', '/run', '--tmpfs', '/run/lock',
            '--tmpfs', '/tmp', '--network', 'host', '--env', 'container=docker', '--stop-signal', 'SIGRTMIN+3', '--stop-timeout', '60',
            '--entrypoint', '/bin/sh', 'machine', '-ec', 'mount -o remount,rw /sys/fs/cgroup; mkdir -p /var/log/journal; exec /sbin/init');
        await this.awaitSystemd();
    }

    async awaitSystemd() {
        try {
            await until('systemd is up', () => this.exec('systemctl', 'is-system-running', '--wait')
                .catch((error) => error.stdout === 'degraded\n'));
        } catch (error) {
            throw new Error(`${error.message}\n${await this.docker('logs', 'machine').catch(() => '')}`);
        }
    }

    // As a power button does it.
    async reboot() {
        await this.docker('stop', 'machine');
        const code = Number(await this.docker('inspect', '--format', '{{.State.ExitCode}}', 'machine'));
        await this.docker('start', 'machine');
        await this.awaitSystemd();
        return code;
    }

    exec(...args) {
        return this.docker('exec', 'machine', ...args);
    }

    // { code, stdout, stderr }, for what is to fail.
    async execRaw(...args) {
        try {
            return { code: 0, ...(await run('docker', ['exec', 'machine', ...args], { env: this.environment })) };
        } catch (error) {
            return { code: error.code, stdout: error.stdout, stderr: error.stderr };
        }
    }

    // For what goes on: a child process of this one.
    command(...args) {
        return ['env', `DOCKER_HOST=${this.environment.DOCKER_HOST}`, `DOCKER_CONFIG=${this.dir}`, 'docker', 'exec', 'machine', ...args];
    }

    write(file, text) {
        return this.exec('sh', '-c', 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', 'sh', file, text);
    }

    // cmake --install, as on a machine that was built on.
    async install(prefix) {
        const at = this.file('install');
        await mkdir(at);
        await run('sh', ['-c', 'umask 022; exec cmake --install "$1" --prefix "$2" --strip', 'sh', build, prefix],
            { env: { ...process.env, DESTDIR: at }, maxBuffer: 64 * MEGA });
        await this.docker('cp', `${at}/.`, 'machine:/');
    }

    // At once, as nobody needs it any more. Nothing here waits for anything, as a process that ends cannot.
    discard() {
        if (!this.dir) return;
        process.removeListener('exit', this.onExit);
        for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.removeListener(signal, this.onSignal);
        try {
            for (const child of this.processes) child.kill('SIGKILL');
            // The engine's are gone when its cgroup can be removed.
            for (let tries = 0; tries < 50; tries++)
                try {
                    execFileSync('unshare', ['--mount', 'sh', 'engine.sh', 'tidy', this.group], { cwd: this.dir, stdio: 'ignore' });
                    break;
                } catch {
                    execFileSync('sleep', ['0.1']);
                }
        } finally {
            rmSync(this.dir, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
            this.dir = undefined;
        }
    }
}

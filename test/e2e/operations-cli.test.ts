import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer as createHttpServer, type Server, type ServerResponse } from 'node:http'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setInterval } from 'node:timers/promises'
import { promisify } from 'node:util'
import { ApiClient } from '../../src/api/client.ts'
import { API_CONNECTIONS_MAX } from '../../src/base/index.ts'
import { createProgram } from '../../src/cli/program.ts'
import { BIN, CliProcess, environment, shoal } from './cli-process.ts'

interface Finding { check: string, level: 'ok' | 'warn' | 'fail', message: string, fix?: string }
interface Report { ok: boolean, warnings: number, failures: number, findings: Finding[] }

describe('operations', function () {
  this.timeout(60_000)
  let root = ''
  let data = ''
  let cid = ''
  let daemon: CliProcess

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-operations-'))
    data = join(root, 'data')
    await writeFile(join(root, 'weights file.bin'), 'weights')
    await writeFile(join(root, 'model.bin'), 'weights')
    daemon = new CliProcess(['daemon', '--data', data, '--json', '--listen', '/ip4/127.0.0.1/tcp/0', '--set', 'log.level=warn,api=debug'])
    await daemon.until(() => daemon.stdout.includes('\n'))
    cid = (await shoal(['--data', data, 'add', join(root, 'model.bin')])).stdout.trim()
    assert.match(cid, /^bafy/)
  })
  after(async () => {
    daemon.signal('SIGTERM')
    await daemon.finished
    await rm(root, { recursive: true, force: true })
  })

  const examine = async (...args: string[]): Promise<{ code: number | null, report: Report, of: (check: string) => Finding[] }> => {
    const { code, stdout, stderr } = await shoal(['doctor', '--json', ...args])
    assert.equal(stderr, '')
    const report = JSON.parse(stdout) as Report
    return { code, report, of: check => report.findings.filter(finding => finding.check === check) }
  }

  describe('doctor', () => {
    it('looks at a daemon and its host, and leaves nothing behind', async () => {
      const { code, report, of } = await examine('--data', data)
      assert.equal(code, 0, JSON.stringify(report))
      assert.deepEqual([...new Set(report.findings.map(({ check }) => check))].sort(), ['clock', 'daemon', 'disk', 'limits', 'memory', 'peers', 'permissions', 'ports', 'versions'])
      assert.match(of('daemon')[0]?.message ?? '', /answers in \d+ ms/)
      assert.match(of('ports')[0]?.message ?? '', /libp2p answers on 127\.0\.0\.1 port \d+/)
      assert.match(of('limits')[0]?.message ?? '', new RegExp(`\\(pid ${daemon.child.pid}\\).* has \\d+ open`))
      assert.deepEqual(of('peers').map(({ level }) => level), ['warn'])
      for (const { level, fix } of report.findings) assert.equal(fix !== undefined, level !== 'ok')
      assert.deepEqual((await readdir(data)).filter(name => name.includes('doctor')), [])
      assert.match((await shoal(['doctor', '--data', data])).stdout, /^ok    daemon[^]*\n {19}-> join a swarm[^]*\n\n0 failed, \d+ to look at\n$/)
    })

    it('looks at the ports that are listened on, whatever others are told', async () => {
      for (const announced of ['/dns4/models.example/tcp/4108', '/ip4/192.0.2.1/tcp/4108']) {
        const name = join(root, announced.slice(1, 4))
        const told = new CliProcess(['daemon', '--data', name, '--json', '--listen', '/ip4/127.0.0.1/tcp/0', '--set', `announceAddresses=${announced}`])
        try {
          await told.until(() => told.stdout.includes('\n'))
          const ports = (await examine('--data', name)).of('ports')
          assert.deepEqual(ports.map(({ level, message }) => [level, /^libp2p answers on 127\.0\.0\.1 port \d+$/.test(message)]), [['ok', true]])
          assert.match((await shoal(['status', '--data', name])).stdout, new RegExp(`^listening +/ip4/127\\.0\\.0\\.1/tcp/\\d+\nfound at +${announced}/p2p/`, 'm'))
        } finally {
          told.signal('SIGTERM')
          await told.finished
        }
      }
    })

    it('tells no limits of a pid that is not the daemon', async () => {
      const lock = join(data, 'lock.pid')
      const other = spawn('sleep', ['60'])
      try {
        await writeFile(lock, `${other.pid}\n`)
        assert.match((await examine('--data', data)).of('limits')[0]?.message ?? '', /^the limit of open files cannot be read here for the daemon/)
      } finally {
        await writeFile(lock, `${daemon.child.pid}\n`)
        other.kill('SIGKILL')
      }
    })

    it('sees secrets that others can read', async () => {
      await chmod(join(data, 'swarm.key'), 0o644)
      await chmod(data, 0o755)
      try {
        const { code, report, of } = await examine('--data', data)
        assert.deepEqual([code, report.ok, report.failures], [1, false, 1])
        assert.deepEqual(of('permissions').map(({ level }) => level).sort(), ['fail', 'warn'])
        assert.match(of('permissions').find(({ level }) => level === 'fail')?.fix ?? '', /chmod 600 /)
      } finally {
        await chmod(join(data, 'swarm.key'), 0o600)
        await chmod(data, 0o700)
      }
    })

    it('says of peers that do not answer what status says, whatever it was given itself', async () => {
      const nobody = '/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGz9PMxtHsbHc66ZDnwJPpgoN7PD4AbF3meXc6xdg7iec'
      assert.deepEqual((await examine('--data', data, '--set', `join=${nobody}`)).of('peers').map(({ level }) => level), ['warn'])
      const alone = join(root, 'alone')
      const joining = new CliProcess(['daemon', '--data', alone, '--json', '--listen', '/ip4/127.0.0.1/tcp/0', '--join', nobody])
      try {
        await joining.until(() => joining.stdout.includes('\n'))
        const { problems } = JSON.parse((await shoal(['status', '--json', '--data', alone])).stdout) as { problems: string[] }
        const { code, of } = await examine('--data', alone)
        assert.equal(code, 1)
        assert.deepEqual(of('peers').map(({ level, message, fix }) => [level, `${message}; ${fix}`]), problems.map(problem => ['fail', problem]))
      } finally {
        joining.signal('SIGTERM')
        await joining.finished
      }
    })

    it('works without a daemon: ports that others have, a directory of a newer version, no room for the quota', async () => {
      const other = createServer()
      await new Promise<void>(resolve => { other.listen(0, '127.0.0.1', resolve) })
      try {
        const { port } = other.address() as { port: number }
        const newer = join(root, 'newer')
        await mkdir(newer, { mode: 0o700 })
        await writeFile(join(newer, 'version'), '999\n')
        const { code, of } = await examine('--data', newer, '--set', `listen=/ip4/127.0.0.1/tcp/${port}`, '--set', 'lane.port=0', '--set', 'storage.quota=4000TiB', '--set', 'storage.donate=4000TiB')
        assert.equal(code, 1)
        assert.equal(of('daemon')[0]?.level, 'warn')
        assert.deepEqual(of('ports').map(({ level, message }) => [level, /taken by another program/.test(message)]), [['fail', true]])
        assert.equal(of('versions').at(-1)?.level, 'fail')
        assert.equal(of('disk').filter(({ level }) => level === 'warn').length >= 2, true)
        assert.deepEqual(await readdir(newer), ['version'])
      } finally {
        await new Promise(resolve => { other.close(resolve) })
      }
      const free = await examine('--data', join(root, 'nowhere', 'yet'), '--set', 'listen=/ip4/127.0.0.1/tcp/0')
      assert.equal(free.code, 0)
      await assert.rejects(stat(join(root, 'nowhere')))
    })

    it('exits 2 for a wrong configuration', async () => {
      assert.equal((await shoal(['doctor', '--data', data, '--set', 'storage.qouta=1'])).code, 2)
    })
  })

  describe('the log of a daemon', () => {
    it('has levels for its parts', async () => {
      const lines = daemon.stderr.split('\n').filter(line => line !== '').map(line => JSON.parse(line) as { component?: string, level: number })
      assert.ok(lines.some(({ component, level }) => component === 'api' && level === 20))
      assert.ok(lines.every(({ component, level }) => component === 'api' || level >= 40))
    })
  })

  describe('stop', () => {
    /** What answers as a daemon does, from elsewhere. */
    const pretend = async (name: string, answer: (response: ServerResponse, server: Server) => void): Promise<{ data: string, server: Server }> => {
      const directory = join(root, name)
      await mkdir(directory, { mode: 0o700 })
      const server: Server = createHttpServer((_request, response) => { answer(response, server) })
      await once(server.listen(join(directory, 'api.sock')), 'listening')
      return { data: directory, server }
    }

    it('goes by the socket where the pid is no daemon here, as that of one in a container', async () => {
      const other = spawn('sleep', ['60'])
      const { data, server } = await pretend('container', (response, server) => {
        response.writeHead(202, { 'content-type': 'application/json' }).end(JSON.stringify({ status: 'stopping', pid: other.pid, startedAt: 0 }))
        setTimeout(() => { server.close() }, 500)
      })
      try {
        const stopped = await shoal(['stop', '--data', data])
        assert.deepEqual([stopped.code, stopped.stderr, server.listening], [0, '', false])
      } finally {
        other.kill('SIGKILL')
        server.close()
      }
    })

    it('waits for no answer for ever, and says who is to be ended if that is the daemon', async () => {
      const stuck = await Promise.all([process.pid, 1].map(async pid => {
        const { data, server } = await pretend(`stuck-${pid}`, () => undefined)
        await writeFile(join(data, 'lock.pid'), `${pid}\n`)
        const stopped = await shoal(['stop', '--data', data])
        server.closeAllConnections()
        server.close()
        return { ...stopped, lock: join(data, 'lock.pid') }
      }))
      assert.deepEqual(stuck.map(({ code, stdout }) => [code, stdout]), [[1, ''], [1, '']])
      assert.match(stuck[0]?.stderr ?? '', new RegExp(`\\(pid ${process.pid}, says ${stuck[0]?.lock}\\) has not answered for .* kill -9 ${process.pid}\\n$`))
      assert.doesNotMatch(stuck[1]?.stderr ?? '', /kill -9/)
    })
  })

  describe('under a service manager', () => {
    it('says that it lives while clients hold every connection of the API', async () => {
      const bin = join(root, 'notify')
      const told = join(root, 'told')
      await mkdir(bin)
      await writeFile(join(bin, 'systemd-notify'), `#!/bin/sh\necho "$@" >> '${told}'\n`, { mode: 0o755 })
      await writeFile(told, '')
      const env = { PATH: `${bin}:${process.env.PATH ?? ''}`, NOTIFY_SOCKET: '/run/nobody', WATCHDOG_USEC: '1500000' }
      const watched = new CliProcess(['daemon', '--data', join(root, 'watched'), '--json', '--listen', '/ip4/127.0.0.1/tcp/0'], { env })
      const sockets: Array<ReturnType<typeof connect>> = []
      try {
        await watched.until(() => watched.stdout.includes('\n'))
        const { api } = JSON.parse(watched.stdout) as { api: string }
        const client = new ApiClient({ socketPath: api })
        while (sockets.length < API_CONNECTIONS_MAX) {
          // An answer says that those before are taken: only so many may queue.
          if (sockets.length % 256 === 0) await client.status()
          const socket = connect(api)
          sockets.push(socket)
          await once(socket, 'connect')
        }
        await assert.rejects(client.status(), { name: 'ApiBusyError' })
        const beats = async (): Promise<number> => (await readFile(told, 'utf8')).split('\n').filter(line => line.includes('WATCHDOG=1')).length
        const before = await beats()
        // One may have been under way.
        for await (const _ of setInterval(50, undefined, { signal: AbortSignal.timeout(10_000) })) if (await beats() >= before + 3) break
        assert.ok((await readFile(told, 'utf8')).startsWith('READY=1 WATCHDOG=1 STATUS='))
      } finally {
        for (const socket of sockets) socket.destroy()
        watched.signal('SIGTERM')
        await watched.finished
      }
    })
  })

  describe('completion', () => {
    let env: Record<string, string> = {}
    /** Of a user whose daemon is another one than they name. */
    const elsewhere = (): Record<string, string> => ({ ...env, SHOAL_DATA: join(root, 'none'), HOME: root })
    before(async () => {
      const bin = join(root, 'bin')
      await mkdir(bin)
      await writeFile(join(bin, 'shoal'), `#!/bin/sh\nexec '${process.execPath}' '${BIN}' "$@"\n`, { mode: 0o755 })
      await Promise.all(['bash', 'zsh', 'fish'].map(async shell => { await writeFile(join(root, `c.${shell}`), (await shoal(['completion', shell])).stdout) }))
      env = environment({ PATH: `${bin}:${process.env.PATH ?? ''}`, SHOAL_DATA: data })
    })
    const runIn = async (env: Record<string, string>, program: string, ...args: string[]): Promise<string> => (await promisify(execFile)(program, args, { env, cwd: root })).stdout
    const run = async (program: string, ...args: string[]): Promise<string> => await runIn(env, program, ...args)
    const hasShell = async (shell: string): Promise<boolean> => await run(shell, '--version').then(() => true, () => false)

    /** What bash would offer for the last of these words. */
    const bash = async (...words: string[]): Promise<string[]> => await bashIn(env, ...words)
    const bashIn = async (env: Record<string, string>, ...words: string[]): Promise<string[]> => {
      const script = `source '${root}/c.bash'; compopt () { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shoal; printf '%s\\n' "\${COMPREPLY[@]}"`
      return (await runIn(env, 'bash', '-c', script, 'bash', 'shoal', ...words)).split('\n').filter(line => line !== '')
    }

    it('offers commands, options, choices, keys, files and models in bash', async () => {
      const commands = createProgram().createHelp().visibleCommands(createProgram()).map(command => command.name()).filter(name => name !== 'help')
      const offered: Array<[string[], string[]]> = [
        [[''], commands],
        [['g'], ['get', 'gc']],
        [['--quiet', 'dra'], ['drain']],
        [['get', '--o'], ['--output', '--order']],
        [['get', '--order', ''], ['rarest', 'sequential']],
        [['daemon', '--set', 'storage.q'], ['storage.quota=']],
        [['--data', 'data', 'get', ''], [cid]],
        [['show', '--tensors', cid.slice(0, 8)], [cid]],
        [['--data', join(root, 'none'), 'get', ''], []],
        [['add', 'weights'], ['weights file.bin']],
        [['get', cid, '--output', 'da'], ['data']],
        [['frobnicate', ''], []]
      ]
      await Promise.all(offered.map(async ([words, expected]) => { assert.deepEqual((await bash(...words)).sort(), expected.sort(), words.join(' ')) }))
    })

    it('offers names that are linked, but for those that a shell would take apart', async () => {
      for (const name of ['org/name', 'name', 'org/name@v2']) assert.equal((await shoal(['--data', data, 'link', name, cid])).code, 0)
      try {
        assert.deepEqual((await bash('get', '')).sort(), [cid, 'name', 'org/name'].sort())
        assert.deepEqual(await bash('link', 'new/name', 'org'), ['org/name'])
      } finally {
        for (const name of ['org/name', 'name', 'org/name@v2']) await shoal(['--data', data, 'unlink', name])
      }
    })

    it('asks the daemon that is named for models, by a path from home and by one word too', async () => {
      assert.deepEqual(await bashIn(elsewhere(), 'get', ''), [])
      for (const words of [['--data', '~/data'], ['--data=data'], ['--data', '=', 'data'], ['--api', '~/data/api.sock']]) assert.deepEqual(await bashIn(elsewhere(), ...words, 'get', ''), [cid], words.join(' '))
    })

    it('evaluates nothing that stands on the command line', async () => {
      const trap = join(root, 'trap')
      await Promise.all([['get', `$(touch ${trap})`], [`\`touch ${trap}\``, ''], ['--data', `$(touch ${trap})`, 'get', ''], ['--api', `;touch ${trap}`, 'get', '']].map(async words => await bash(...words)))
      await assert.rejects(stat(trap))
    })

    it('offers the same in zsh', async function () {
      if (!await hasShell('zsh')) this.skip()
      const zsh = async (...words: string[]): Promise<string> => await runIn(elsewhere(), 'zsh', '-f', '-c', `compdef () { :; }; source '${root}/c.zsh'; words=("$@"); CURRENT=$#; current=$words[CURRENT]; _shoal_walk; print -r -- "$kind $choices" $globals`, 'zsh', 'shoal', ...words)
      assert.equal(await zsh('get', '--order', ''), 'choice rarest sequential\n')
      assert.equal(await zsh('get', ''), 'model \n')
      assert.equal(await zsh('get', cid, '--output', ''), 'directory \n')
      assert.match(await zsh(''), /^command daemon /)
      assert.equal(await zsh('--data=/x', 'get', ''), 'model  --data=/x\n')
      assert.equal(await zsh('--data', '~/x', 'get', ''), `model  --data ${root}/x\n`)
    })

    it('offers the same in fish', async function () {
      if (!await hasShell('fish')) this.skip()
      const fish = async (line: string): Promise<string[]> => (await runIn(elsewhere(), 'fish', '--no-config', '-c', `source '${root}/c.fish'; complete -C ${JSON.stringify(line)}`)).split('\n').filter(line => line !== '').map(line => line.split('\t')[0] ?? '')
      assert.deepEqual(await fish('shoal g'), ['gc', 'get'])
      assert.deepEqual(await fish('shoal get --ord'), ['--order'])
      assert.deepEqual(await fish('shoal --data data g'), ['gc', 'get'])
      assert.deepEqual(await fish('shoal --quiet --data=data dra'), ['drain'])
      assert.deepEqual(await fish('shoal --data get get --ord'), ['--order'])
      assert.deepEqual((await fish('shoal get ')).filter(word => word.startsWith('bafy')), [])
      for (const given of ['--data data', '--data=data', '--data ~/data', `--api '${data}/api.sock'`]) assert.deepEqual((await fish(`shoal ${given} get `)).filter(word => word.startsWith('bafy')), [cid], given)
    })

    it('is for the shells it knows, and loads twice', async () => {
      assert.equal((await shoal(['completion', 'powershell'])).code, 2)
      await run('bash', '-c', `set -e; source '${root}/c.bash'; source '${root}/c.bash'`)
      assert.ok((await readFile(join(root, 'c.fish'), 'utf8')).includes("-a gc -d 'evict"))
    })
  })
})

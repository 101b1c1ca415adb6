import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chmod, cp, mkdir, mkdtemp, open, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiClient } from '../../src/api/client.ts'
import { MiB } from '../../src/base/index.ts'
import { BIN, CHECKOUT_BIN, CliProcess, environment, shoal, type Finished } from './cli-process.ts'
import { until } from '../support/until.ts'

const MODEL_BYTES = 12 * MiB
const NOWHERE = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'

interface Ready { event: string, peerId: string, listen: string[], api: string, url?: string }

describe('the command line', function () {
  this.timeout(60_000)
  let root = ''
  let model = ''
  const daemons = new Set<CliProcess>()

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-cli-'))
    model = join(root, 'model')
    await mkdir(join(model, 'sub'), { recursive: true })
    await writeFile(join(model, 'config.json'), '{"architectures":["LlamaForCausalLM"]}')
    await writeFile(join(model, 'weights.bin'), randomBytes(MODEL_BYTES))
    await writeFile(join(model, 'sub', 'tokenizer.json'), randomBytes(1000))
  })
  after(async () => {
    for (const daemon of daemons) if (!daemon.ended) daemon.signal('SIGKILL')
    await Promise.all([...daemons].map(async daemon => await daemon.finished))
    await rm(root, { recursive: true, force: true })
  })

  async function start (name: string, args: string[] = [], env: Record<string, string> = {}): Promise<{ daemon: CliProcess, ready: Ready, run: (...args: string[]) => Promise<Finished>, client: ApiClient, data: string }> {
    const data = join(root, name)
    const daemon = new CliProcess(['daemon', '--data', data, '--json', '--listen', '/ip4/127.0.0.1/tcp/0', ...args], { env })
    daemons.add(daemon)
    await daemon.until(() => daemon.stdout.includes('\n'))
    const ready = JSON.parse(daemon.stdout) as Ready
    return { daemon, ready, data, run: async (...args) => await shoal(['--data', data, ...args]), client: new ApiClient({ socketPath: ready.api }) }
  }

  const jsonOf = ({ stdout, stderr, code }: Finished): unknown => {
    assert.equal(stderr, '')
    assert.equal(code, 0)
    return JSON.parse(stdout)
  }
  const errorOf = ({ stderr }: Finished): { name: string, message: string } => (JSON.parse(stderr.trim().split('\n').at(-1) ?? '') as { error: { name: string, message: string } }).error

  describe('without a daemon', () => {
    it('prints version and help to stdout', async () => {
      const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
      assert.deepEqual(await shoal(['--version']), { code: 0, stdout: `${version}\n`, stderr: '' })
      const help = await shoal(['--help'])
      assert.deepEqual([help.code, help.stderr], [0, ''])
      for (const command of ['daemon', 'invite', 'add', 'get', 'ls', 'show', 'ps', 'peers', 'status', 'verify', 'pin', 'unpin', 'drain', 'rm', 'gc']) assert.match(help.stdout, new RegExp(`^  ${command} `, 'm'))
      assert.match((await shoal(['get', '--help'])).stdout, /--output/)
    })

    it('says the same from a checkout, and starts a daemon there', async () => {
      assert.deepEqual(await shoal(['--help'], { bin: CHECKOUT_BIN }), await shoal(['--help']))
      const daemon = new CliProcess(['daemon', '--data', join(root, 'checkout'), '--listen', '/ip4/127.0.0.1/tcp/0', '--json'], { bin: CHECKOUT_BIN })
      daemons.add(daemon)
      await daemon.until(() => daemon.stdout.includes('"event":"ready"'))
      daemon.signal('SIGTERM')
      assert.equal((await daemon.finished).code, 0)
    })

    it('exits 2 for wrong usage, in words or as JSON', async () => {
      const wrong: string[][] = [[], ['frobnicate'], ['get'], ['ls', 'extra'], ['add', '--nope', 'x'], ['get', NOWHERE, '--order', 'random'], ['--api', `/${'x'.repeat(120)}`, 'ls'], ['--data'], ['--data', '', 'ls'], ['--api', '', 'ls'],
        ['add', ''], ['add', '', '--in-place'], ['add', '--from-hf-cache', 'org/name', '--cache-dir', ''], ['get', NOWHERE, '--output', ''], ['export', NOWHERE, '--hf-cache', '--cache-dir', '']]
      for (const args of wrong) {
        const [words, json] = await Promise.all([shoal(args), shoal(['--json', ...args])])
        assert.deepEqual([words.code, words.stdout, json.code, json.stdout], [2, '', 2, ''], args.join(' '))
        assert.match(words.stderr, /^shoal: /m, args.join(' '))
        assert.match(json.stderr, /^\{"error":\{.*"kind":"usage".*\}\}\n$/, args.join(' '))
      }
      assert.equal(errorOf(await shoal(['ls', 'extra', '--json'])).name, 'UsageError')
    })

    it('exits 1 where the answer does not fit, in words or as JSON', async () => {
      const full = await open('/dev/full', 'w')
      try {
        for (const args of [['completion', 'bash'], ['--json', 'completion', 'bash'], ['--json', '--version']]) {
          const child = spawn(process.execPath, [BIN, ...args], { stdio: ['ignore', full.fd, 'pipe'], env: environment() })
          let stderr = ''
          child.stderr?.setEncoding('utf8').on('data', (text: string) => { stderr += text })
          const [code] = await once(child, 'close') as [number | null]
          assert.equal(code, 1, stderr)
          if (args[0] === '--json') assert.equal((JSON.parse(stderr) as { error: { name: string } }).error.name, 'OutOfSpaceError')
          else assert.equal(stderr, 'shoal: no space is left for the answer on stdout; free some, and run it again\n')
        }
      } finally {
        await full.close()
      }
    })

    it('exits 5 and says how to start one', async () => {
      const data = join(root, 'none')
      const commands = [['ls'], ['add', model], ['get', NOWHERE], ['status'], ['invite'], ['verify'], ['gc'], ['ps'], ['peers'], ['drain'], ['rm', NOWHERE]]
      const results = await Promise.all(commands.map(async args => await shoal(['--data', data, ...args])))
      for (const { code, stderr } of results) {
        assert.equal(code, 5)
        assert.equal(stderr, `shoal: no daemon listens on ${data}/api.sock; start one with: shoal daemon --data ${data}\n`)
      }
      const own = await shoal(['--data', join(root, 'my data'), '--api', join(root, 'own.sock'), 'ls'])
      assert.equal(own.stderr, `shoal: no daemon listens on ${root}/own.sock; start one with: shoal daemon --data '${root}/my data' --api ${root}/own.sock\n`)
      const byEnvironment = await shoal(['ls', '--json'], { env: { SHOAL_DATA: data } })
      assert.deepEqual([byEnvironment.code, errorOf(byEnvironment).name], [5, 'DaemonUnreachableError'])
      assert.match((await shoal(['ls'], { env: { XDG_DATA_HOME: root } })).stderr, new RegExp(`${root}/shoal/api.sock; start one with: shoal daemon\n$`))
    })

    it('daemon exits 2 for a wrong configuration, and makes nothing', async () => {
      const data = join(root, 'misconfigured')
      await writeFile(join(root, 'bad.jsonc'), '{ "storage": { "qouta": "1GiB" } } // oops')
      const results = await Promise.all([
        [['--set', 'storage.qouta=1GiB'], /did you mean storage\.quota\?/],
        [['--set', 'storage.quota=lots'], /must be a size such as 500GiB/],
        [['--config', join(root, 'bad.jsonc')], /bad\.jsonc.*did you mean storage\.quota\?/],
        [['--config', join(root, 'missing.json')], /cannot use the configuration file/],
        [['--label', 'nonsense'], /--label takes key=value/],
        [['--join', 'shoal1nonsense'], /invite/],
        [['--listen', 'everywhere'], /must be a multiaddr/],
        [['--set', 'hf.listen=0.0.0.0:1'], /hf\.listen names 0\.0\.0\.0, which others can reach; .*hf\.allowRemote/],
        [['--set', 'metrics.listen=0.0.0.0:1'], /metrics\.listen names 0\.0\.0\.0, which others can reach; .*metrics\.allowRemote/],
        [['--set', 'api.tcp.port=0', '--set', 'api.tcp.host=0.0.0.0'], /api\.tcp\.host is 0\.0\.0\.0, which others can reach/]
      ].map(async ([args, message]) => ({ message: message as RegExp, result: await shoal(['daemon', '--data', data, ...args as string[]]) })))
      for (const { message, result } of results) {
        assert.equal(result.code, 2, result.stderr)
        assert.match(result.stderr, message)
      }
      const variable = await shoal(['daemon', '--data', data], { env: { SHOAL_SET_STORAGE_QOUTA: '1' } })
      assert.equal(variable.code, 2)
      assert.match(variable.stderr, /did you mean SHOAL_SET_STORAGE_QUOTA\?/)
      await assert.rejects(access(data))
    })
  })

  it('daemon exits 1 for an address that is taken or not there, which may pass, so that a service manager tries again', async () => {
    const other = createServer()
    await new Promise<void>(resolve => { other.listen(0, '127.0.0.1', resolve) })
    try {
      const { port } = other.address() as { port: number }
      const free = ['--listen', '/ip4/127.0.0.1/tcp/0']
      const cases = [['--listen', `/ip4/127.0.0.1/tcp/${port}`], ['--listen', '/ip4/192.0.2.1/tcp/0'], [...free, '--set', `hf.listen=127.0.0.1:${port}`], [...free, '--set', `api.tcp.port=${port}`]]
      for (const [at, args] of cases.entries()) {
        const result = await shoal(['daemon', '--data', join(root, `taken-${at}`), '--json', ...args])
        assert.deepEqual([result.code, errorOf(result).name], [1, 'ConfigError'], `${args.join(' ')}: ${result.stderr}`)
      }
    } finally {
      await new Promise(resolve => { other.close(resolve) })
    }
  })

  it('keeps what it compiled where nobody else can put anything, and nowhere else', async () => {
    const [own, open, temporary] = [join(root, 'cache-own'), join(root, 'cache-open'), join(root, 'cache-tmp')]
    for (const directory of [own, open, temporary]) await mkdir(directory)
    await chmod(open, 0o777)
    const kept = async (directory: string): Promise<number> => (await readdir(directory, { recursive: true, withFileTypes: true })).filter(entry => entry.isFile()).length
    for (const [cache, isKept] of [[own, true], [join(open, 'below'), false], [join(own, 'x'.repeat(300)), false]] as const) {
      const { code } = await shoal(['--version'], { env: { XDG_CACHE_HOME: cache, TMPDIR: temporary } })
      assert.equal(code, 0)
      if (isKept) assert.ok(await kept(cache) > 0)
    }
    assert.deepEqual([await kept(open), await kept(temporary)], [0, 0])
  })

  describe('with a Node that is too old', () => {
    const old = oldNode()
    let copy = ''
    before(async function () {
      if (old === undefined) this.skip()
      copy = join(root, 'copy')
      await mkdir(join(copy, 'src', 'cli'), { recursive: true })
      await cp(BIN, join(copy, 'src', 'cli', 'bin.js'))
      await writeFile(join(copy, 'package.json'), '{"type":"module"}')
    })

    it('runs on the one that npm ci brought along, passing on exit code and signals', async function () {
      const { code, stderr } = await shoal(['ls', 'extra'], { node: old })
      assert.deepEqual([code, stderr], [2, "shoal: too many arguments for 'ls'. Expected 0 arguments but got 1: extra.\n"])
      const daemon = new CliProcess(['daemon', '--data', join(root, 'launched'), '--json', '--listen', '/ip4/127.0.0.1/tcp/0'], { node: old })
      daemons.add(daemon)
      await daemon.until(() => daemon.stdout.includes('\n'))
      daemon.signal('SIGTERM')
      assert.equal((await daemon.finished).code, 0)
    })

    it('takes the program down with the launcher when that is killed', async function () {
      const daemon = new CliProcess(['daemon', '--data', join(root, 'orphan'), '--json', '--listen', '/ip4/127.0.0.1/tcp/0'], { node: old })
      daemons.add(daemon)
      await daemon.until(() => daemon.stdout.includes('\n'))
      daemon.signal('SIGKILL')
      // Its pipes close when the last process that holds them is gone.
      await daemon.finished
      await assert.rejects(new ApiClient({ socketPath: join(root, 'orphan', 'api.sock') }).status(), { name: 'DaemonUnreachableError' })
    })

    it('says so in one line where there is none', async function () {
      const run = execute(old ?? '', [join(copy, 'src', 'cli', 'bin.js'), 'ls'])
      assert.equal(run.code, 1)
      assert.match(run.stderr, /^shoal needs Node 22\.18 or newer \(found v\d+\.\d+\.\d+\); run npm ci in the checkout or install a newer Node\n$/)
    })
  })

  describe('one daemon', () => {
    it('is ready when it says so, refuses a second one, and stops on SIGTERM', async () => {
      const { daemon, ready, run, data } = await start('one')
      assert.equal(ready.event, 'ready')
      assert.equal(ready.api, join(data, 'api.sock'))
      assert.match(ready.listen[0] ?? '', new RegExp(`^/ip4/127\\.0\\.0\\.1/tcp/\\d+/p2p/${ready.peerId}$`))
      assert.equal((await stat(data)).mode & 0o777, 0o700)
      assert.equal((await stat(join(data, 'swarm.key'))).mode & 0o777, 0o600)

      const second = await shoal(['daemon', '--data', data, '--json', '--listen', '/ip4/127.0.0.1/tcp/0'])
      assert.deepEqual([second.code, second.stdout, errorOf(second).name], [1, '', 'StoreLockedError'])
      const sameSocket = await shoal(['daemon', '--data', join(root, 'other'), '--api', ready.api, '--json', '--listen', '/ip4/127.0.0.1/tcp/0'])
      assert.deepEqual([sameSocket.code, sameSocket.stdout, errorOf(sameSocket).name], [1, '', 'ApiSocketInUseError'])
      assert.equal((await run('status')).code, 0)

      const before = performance.now()
      daemon.signal('SIGTERM')
      assert.equal((await daemon.finished).code, 0)
      assert.ok(performance.now() - before < 5_000)
      await assert.rejects(access(ready.api))
      assert.equal((await run('status')).code, 5)
    })

    it('keeps its identity and swarm over a kill -9, and takes over the socket that was left', async () => {
      const first = await start('again')
      first.daemon.signal('SIGKILL')
      await first.daemon.finished
      await access(first.ready.api)
      const second = await start('again')
      assert.equal(second.ready.peerId, first.ready.peerId)
      second.daemon.signal('SIGINT')
      assert.equal((await second.daemon.finished).code, 0)
    })

    it('refuses a data directory of a newer version, and leaves it as it is', async () => {
      const { daemon, data } = await start('newer')
      daemon.signal('SIGTERM')
      await daemon.finished
      await writeFile(join(data, 'version'), '999\n')
      const refused = await shoal(['daemon', '--data', data, '--json'])
      assert.deepEqual([refused.code, errorOf(refused).name], [1, 'StoreVersionError'])
      assert.equal(await readFile(join(data, 'version'), 'utf8'), '999\n')
    })

    it('tells who it is in status, and stops when a client asks', async () => {
      const { daemon, ready, run, client } = await start('labelled', ['--label', 'zone=a', '--set', 'storage.quota=1GiB', '--set', 'api.tcp.port=0'], { SHOAL_SET_LABELS: 'rack=7' })
      const status = jsonOf(await run('status', '--json')) as { peerId: string, labels: object, storage: { quotaBytes: number }, problems: string[] }
      assert.deepEqual([status.peerId, status.labels, status.storage.quotaBytes, status.problems], [ready.peerId, { rack: '7', zone: 'a' }, 2 ** 30, []])
      assert.match((await run('status')).stdout, /^all is well\n/)
      const token = (await readFile(join(root, 'labelled', 'api.token'), 'utf8')).trim()
      assert.equal((await fetch(`${ready.url}/v1/status`)).status, 401)
      assert.equal((await fetch(`${ready.url}/v1/status`, { headers: { authorization: `Bearer ${token}` } })).status, 200)
      assert.equal((await fetch(`${ready.url}/v1/status`, { headers: { authorization: `Bearer ${token}`, origin: 'http://evil.example' } })).status, 403)
      assert.match(await (await fetch(`${ready.url}/metrics`, { headers: { authorization: `Bearer ${token}` } })).text(), /^shoal_process_cpu_seconds_total /m)
      assert.deepEqual(await client.shutdown(), { status: 'stopping', pid: daemon.child.pid })
      assert.equal((await daemon.finished).code, 0)
    })

    it('stop ends the daemon, and returns when it has ended', async () => {
      const { daemon, run } = await start('ended')
      const stopped = await run('stop')
      assert.deepEqual([stopped.code, stopped.stderr], [0, ''])
      assert.match(stopped.stdout, /^stopped, in \d+\.\d s\n$/)
      await daemon.until(() => daemon.ended)
      assert.equal((await daemon.finished).code, 0)
      const again = await run('stop')
      assert.deepEqual([again.code, again.stdout], [5, ''])
      assert.match(again.stderr, /no daemon/)
    })

    it('adds, lists, shows, verifies, pins, collects and removes', async () => {
      const { run, data } = await start('life')
      assert.match((await run('ls')).stdout, /no models yet/)
      const added = await run('add', model)
      const cid = added.stdout.trim()
      assert.deepEqual([added.code, added.stdout], [0, `${cid}\n`])
      assert.match(added.stderr, /^added 3 files, 12 MiB in \d+ blocks, 12 MiB new, in /)
      const again = jsonOf(await run('add', model, '--json')) as Record<string, number>
      assert.deepEqual([again.cid, again.files, again.newBytes], [cid, 3, 0])
      assert.equal((await run('--quiet', 'add', model)).stderr, '')

      const [listed, listedJson, shown, shownJson, running, peers, verified] = await Promise.all([
        run('ls'), run('ls', '--json'), run('show', cid), run('--json', 'show', cid), run('ps'), run('peers', '--json'), run('verify')
      ])
      assert.match(listed.stdout, new RegExp(`^CID .*\\n${cid} +3 +12 MiB +100 % +published`))
      assert.equal((jsonOf(listedJson) as Array<{ cid: string }>)[0]?.cid, cid)
      for (const text of [cid, 'config.json', 'sub/tokenizer.json', 'weights.bin', 'no other holder is known']) assert.ok(shown.stdout.includes(text), text)
      assert.equal((jsonOf(shownJson) as { fileList: unknown[] }).fileList.length, 3)
      assert.equal(running.stdout, 'nothing is loading\n')
      assert.deepEqual(jsonOf(peers), [])
      assert.match(verified.stdout, /all good\n$/)
      assert.deepEqual(jsonOf(await run('pin', cid, '--json')), { cid, pinned: true })
      assert.match((await run('ls')).stdout, /pinned, published/)
      assert.equal((await run('unpin', cid)).stdout, `unpinned ${cid}\n`)
      assert.equal((jsonOf(await run('gc', '--dry-run', '--json')) as { dryRun: boolean }).dryRun, true)

      // A block that has gone bad is found, told, and gives exit code 4.
      const files = (await readdir(join(data, 'files'))).map(name => join(data, 'files', name))
      const sizes = await Promise.all(files.map(async file => (await stat(file)).size))
      const large = files[sizes.indexOf(MODEL_BYTES)] ?? ''
      await chmod(large, 0o644)
      const handle = await open(large, 'r+')
      await handle.write(Buffer.from('rotten'), 0, 6, 5 * MiB)
      await handle.close()
      const bad = await run('verify', cid, '--json')
      assert.equal(bad.code, 4)
      assert.deepEqual((JSON.parse(bad.stdout) as { bad: Array<{ path: string, block: number }> }).bad.map(({ path, block }) => [path, block]), [['weights.bin', 1]])
      assert.match((await run('status')).stdout, /^! /)

      const removed = jsonOf(await run('rm', cid, '--json')) as { cid: string, freedBytes: number }
      assert.equal(removed.cid, cid)
      assert.ok(removed.freedBytes > 0)
      const gone = [['rm', cid], ['show', cid], ['pin', cid], ['verify', cid]]
      const malformed = [['rm', 'nonsense'], ['get', 'bafkqaaa'], ['show', 'bafkr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi']]
      assert.deepEqual(await Promise.all([...gone, ...malformed].map(async args => (await run(...args)).code)), [3, 3, 3, 3, 2, 2, 2])
    })

    it('takes a name that is linked wherever it takes a CID', async () => {
      const { run } = await start('by-name')
      const cid = (await run('--quiet', 'add', model)).stdout.trim()
      assert.equal((await run('link', 'org/name@v2', cid)).code, 0)
      assert.equal((await run('link', 'name', 'org/name@v2')).stdout, `linked name to ${cid}\n`)
      const cache = join(root, 'named-cache')
      const told = async (...args: string[]): Promise<unknown> => (jsonOf(await run('--quiet', '--json', ...args)) as { cid: unknown }).cid
      assert.deepEqual([await told('get', 'org/name@v2'), await told('show', 'name'), await told('pin', 'name'), await told('unpin', `cid/${cid}`)], [cid, cid, cid, cid])
      assert.match((await run('verify', 'org/name@v2')).stdout, /all good\n$/)
      const exported = jsonOf(await run('--quiet', '--json', 'export', 'org/name@v2', '--hf-cache', '--cache-dir', cache)) as { cid: string, repo: string, revision: string }
      assert.deepEqual([exported.cid, exported.repo, exported.revision], [cid, 'org/name', 'v2'])

      const unlinked = ['get', 'show', 'verify', 'pin', 'unpin', 'rm'].map(command => [command, 'org/name'])
      for (const result of await Promise.all([...unlinked, ['export', 'org/name', '--hf-cache'], ['link', 'a/b', 'org/name']].map(async args => await run(...args)))) {
        assert.deepEqual([result.code, result.stdout, result.stderr], [3, '', 'shoal: nothing is linked as "org/name" here; see what is with: shoal links; link it with: shoal link NAME CID\n'])
      }
      assert.equal(await told('rm', 'name'), cid)
      assert.equal((await run('show', 'name')).code, 3)
    })

    it('writes all of a long answer, also into a pipe', async () => {
      const { run, data } = await start('long')
      const tensors = Array.from({ length: 8_000 }, (_, i) => [`model.layers.${i}.self_attn.q_proj.weight`, { dtype: 'U8', shape: [1], data_offsets: [i, i + 1] }])
      const header = Buffer.from(JSON.stringify(Object.fromEntries(tensors)))
      const length = Buffer.alloc(8)
      length.writeUInt32LE(header.length)
      const path = join(data, '..', 'long.safetensors')
      await writeFile(path, Buffer.concat([length, header, Buffer.alloc(8_000)]))
      const { cid } = jsonOf(await run('add', path, '--json')) as { cid: string }
      const shown = await run('show', cid, '--json')
      assert.ok(shown.stdout.length > 500_000, `${shown.stdout.length} characters`)
      assert.equal((jsonOf(shown) as { fileList: Array<{ tensors: unknown[] }> }).fileList[0]?.tensors.length, 8_000)
    })

    it('says what is wrong with what is added', async () => {
      const { run } = await start('wrong')
      await mkdir(join(root, 'empty', 'inner'), { recursive: true })
      await mkdir(join(root, 'linked'))
      await symlink(join(model, 'weights.bin'), join(root, 'linked', 'weights.bin'))
      await mkdir(join(root, 'named'))
      await writeFile(join(root, 'named', 'ünicode name'), 'x')
      const cases: Array<[string, string, number]> = [['empty', 'EmptyModelError', 2], ['linked', 'SymbolicLinkError', 2], ['named', 'InvalidPathError', 2], ['missing', 'UnreadableSourceError', 1]]
      await Promise.all(cases.map(async ([name, error, code]) => {
        const result = await run('add', join(root, name), '--json')
        assert.deepEqual([result.code, errorOf(result).name], [code, error], name)
      }))
      const inPlace = jsonOf(await run('add', model, '--in-place', '--json')) as { cid: string }
      const got = await run('get', inPlace.cid)
      assert.deepEqual([got.code, got.stdout], [0, `${model}\n`])
      assert.equal((await run('add', join(root, 'linked'), '--follow')).code, 0)
    })
  })

  it('verify lists all that an in-place file lost by changing, and goes on saying that it is lost', async () => {
    const { run } = await start('changed')
    const source = join(root, 'changing')
    await mkdir(source)
    await writeFile(join(source, 'weights.bin'), randomBytes(MODEL_BYTES))
    const { cid, blocks } = jsonOf(await run('add', source, '--in-place', '--json')) as { cid: string, blocks: number }
    await writeFile(join(source, 'weights.bin'), randomBytes(MODEL_BYTES + 1))
    const found = await run('verify')
    assert.equal(found.code, 4)
    assert.match(found.stdout, new RegExp(`^${cid} +weights.bin +0-${blocks - 1} +.*weights.bin changed: `, 'm'))
    assert.match(found.stdout, new RegExp(`^${blocks} blocks, 12 MiB checked: ${blocks} blocks bad and withdrawn; `, 'm'))
    const again = await run('verify')
    assert.equal(again.code, 4)
    assert.equal(again.stdout, `0 blocks, 0 B checked, and what is here is good; not all is here\n${cid} was added here and lacks 12 MiB that are gone or changed; add it again, or fetch them from others: shoal get ${cid}\n`)
    assert.deepEqual(JSON.parse((await run('verify', '--json')).stdout), { blocks: 0, bytes: 0, bad: [], lacking: [{ cid, bytes: MODEL_BYTES, published: true }] })
    await run('add', source, '--in-place')
    assert.equal((await run('rm', cid)).code, 0)
    assert.match((await run('verify')).stdout, /all good\n$/)
  })

  describe('two daemons', () => {
    it('one joins the other by invite, loads from it, places the files, and both agree', async () => {
      const a = await start('a', ['--set', 'transfer.providerTimeoutMs=1s'])
      const { invite } = jsonOf(await a.run('invite', '--json')) as { invite: string }
      const b = await start('b', [], { SHOAL_JOIN: invite })
      const { cid } = jsonOf(await a.run('add', model, '--json')) as { cid: string }

      const out = join(root, 'out')
      const got = jsonOf(await b.run('get', cid, '--output', out, '--json')) as { cid: string, path: string, bytes: number, fetchedBytes: number, reusedBytes: number, duplicateBytes: number, seconds: number, peers: Record<string, number> }
      assert.deepEqual(Object.keys(got).sort(), ['bytes', 'cid', 'duplicateBytes', 'fetchedBytes', 'path', 'peers', 'reusedBytes', 'seconds'])
      assert.deepEqual([got.cid, got.path, got.reusedBytes, got.fetchedBytes, got.peers], [cid, out, 0, got.bytes, { [a.ready.peerId]: got.bytes }])
      for (const file of ['config.json', 'weights.bin', 'sub/tokenizer.json']) assert.equal(await sha256(join(out, file)), await sha256(join(model, file)), file)

      const again = await b.run('get', cid)
      assert.equal(again.stdout.trim(), join(b.data, 'models', cid))
      assert.match(again.stderr, /0 B fetched from 0 peers, 12 MiB was here/)
      assert.equal((jsonOf(await b.run('get', cid, '--output', out, '--json')) as { path: string }).path, out)
      const some = join(root, 'some')
      assert.equal((await b.run('get', cid, '--include', '*.json', '--include', 'sub/*', '--output', some)).code, 0)
      assert.deepEqual((await readdir(some, { recursive: true })).sort(), ['config.json', 'sub', 'sub/tokenizer.json'])
      assert.equal((await b.run('get', cid, '--include', '*.gguf')).code, 2)

      await rm(join(out, 'config.json'))
      await writeFile(join(out, 'config.json'), 'mine')
      const exists = await b.run('get', cid, '--output', out, '--json')
      assert.deepEqual([exists.code, errorOf(exists).name], [1, 'OutputExistsError'])
      assert.equal(await readFile(join(out, 'config.json'), 'utf8'), 'mine')

      const peers = jsonOf(await b.run('peers', '--json')) as Array<{ peerId: string, connected: boolean, receivedBytes: number }>
      assert.deepEqual(peers.map(peer => [peer.peerId, peer.connected]), [[a.ready.peerId, true]])
      // Blocks, and a little metadata.
      assert.ok((peers[0]?.receivedBytes ?? 0) >= got.bytes && (peers[0]?.receivedBytes ?? 0) < got.bytes + 100_000)
      assert.match((await b.run('peers')).stdout, new RegExp(a.ready.peerId))
      const stranger = await shoal(['daemon', '--data', join(root, 'stranger-data'), '--join', invite.slice(0, -4)])
      assert.equal(stranger.code, 2)

      // The swarm key stays without the invite, and another swarm's is refused.
      b.daemon.signal('SIGTERM')
      await b.daemon.finished
      const c = await start('c')
      const other = (await c.run('invite')).stdout.trim()
      const refused = await shoal(['daemon', '--data', b.data, '--join', other, '--json'])
      assert.deepEqual([refused.code, errorOf(refused).name], [2, 'ConfigError'])

      const nobody = await a.run('get', NOWHERE, '--json')
      assert.deepEqual([nobody.code, errorOf(nobody).name], [3, 'NoProviderError'])
      assert.match(errorOf(nobody).message, /\d+ peers? (was|were) asked|no other peer/)
    })

    it('a load that is interrupted is left, and goes on where it was', async () => {
      const a = await start('slow', ['--set', 'lane.bytesPerSecond.up=6MiB'])
      const invite = (await a.run('invite')).stdout.trim()
      const b = await start('fast', ['--join', invite])
      const cid = (await a.run('add', model)).stdout.trim()
      const get = new CliProcess(['--data', b.data, 'get', cid, '--json'])
      await until('a MiB came', async () => ((await b.client.transfers())[0]?.progress.bytesDone ?? 0) > MiB)
      get.signal('SIGINT')
      const interrupted = await get.finished
      assert.deepEqual([interrupted.code, interrupted.stdout, errorOf(interrupted).name], [130, '', 'AbortError'])
      assert.match(errorOf(interrupted).message, new RegExp(`go on with: shoal get ${cid}`))
      await until('the load is left', async () => (await b.client.transfers()).length === 0)

      const kept = (await b.client.models())[0]?.presentBytes ?? 0
      assert.ok(kept > MiB && kept < MODEL_BYTES)
      const resumed = jsonOf(await b.run('get', cid, '--json', '--quiet')) as { bytes: number, fetchedBytes: number, reusedBytes: number }
      // Blocks that were written but not yet recorded at the look above are kept as well.
      assert.ok(resumed.reusedBytes >= kept)
      assert.ok(resumed.fetchedBytes > 0 && resumed.fetchedBytes <= resumed.bytes - resumed.reusedBytes)
    })

    it('a daemon that stops ends the loads of its clients in words, within five seconds', async () => {
      const a = await start('slow-2', ['--set', 'lane.bytesPerSecond.up=6MiB'])
      const b = await start('fast-2', ['--join', (await a.run('invite')).stdout.trim()])
      const cid = (await a.run('add', model)).stdout.trim()
      const get = new CliProcess(['--data', b.data, 'get', cid, '--json'])
      await until('a byte came', async () => ((await b.client.transfers())[0]?.progress.bytesDone ?? 0) > 0)
      const before = performance.now()
      b.daemon.signal('SIGTERM')
      const ended = await get.finished
      assert.deepEqual([ended.code, errorOf(ended).name], [1, 'NodeStoppedError'])
      assert.equal((await b.daemon.finished).code, 0)
      assert.ok(performance.now() - before < 5_000)
    })

    it('a reader that stops early stops nobody', async () => {
      const a = await start('pipes')
      await a.run('add', model)
      const output = execFileSync('/bin/sh', ['-c', `"${process.execPath}" "${BIN}" --data "${a.data}" ls | head -c 3`], { env: environment() }).toString()
      assert.equal(output, 'CID')
      a.daemon.child.stdout?.destroy()
      a.daemon.child.stderr?.destroy()
      assert.equal((await a.run('status')).code, 0)
      assert.equal((await shoal(['--data', a.data, 'get', 'nonsense'])).code, 2)
      assert.equal((await a.run('status')).code, 0)
    })
  })
})

async function sha256 (path: string): Promise<string> {
  return createHash('sha256').update(await readFile(path)).digest('hex')
}

/** A Node on this machine that cannot run the sources; most have one besides the bundled one. */
function oldNode (): string | undefined {
  for (const path of ['/usr/bin/node', '/usr/local/bin/node']) {
    const { code, stdout } = execute(path, ['-p', 'process.versions.node'])
    const [major = 0, minor = 0] = stdout.split('.').map(Number)
    if (code === 0 && major >= 14 && (major < 22 || (major === 22 && minor < 18))) return path
  }
  return undefined
}

function execute (path: string, args: string[]): { code: number, stdout: string, stderr: string } {
  try {
    return { code: 0, stdout: execFileSync(path, args, { stdio: 'pipe', env: environment() }).toString(), stderr: '' }
  } catch (error) {
    const { status, stdout, stderr } = error as { status?: number | null, stdout?: Buffer, stderr?: Buffer }
    return { code: status ?? -1, stdout: stdout?.toString() ?? '', stderr: stderr?.toString() ?? '' }
  }
}

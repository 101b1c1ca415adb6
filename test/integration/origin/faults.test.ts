import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { MiB, systemClock, type Clock, type Logger } from '../../../src/base/index.ts'
import { createHfServer, type HfServer } from '../../../src/hf/index.ts'
import type { NodeInit } from '../../../src/node/init.ts'
import type { Caller, OriginModel, ShoalNode } from '../../../src/node/types.ts'
import { Upstream } from '../../../src/origin/upstream.ts'
import type { Cluster } from '../../support/cluster.ts'
import { Hub } from '../../support/hub.ts'
import { until } from '../../support/until.ts'
import { hubCluster } from './hub-cluster.ts'

const FILES = { 'config.json': Buffer.from('{"model_type":"llama"}'), 'model.safetensors': randomBytes(2 * MiB + 3), 'w.bin': randomBytes(MiB) }
const TOTAL = Object.values(FILES).reduce((sum, { length }) => sum + length, 0)
/** Patience in a twentieth of the time, where there is much of it. */
const hasty: Clock = { ...systemClock, setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs >= 15_000 ? delayMs / 20 : delayMs) }
/** All of it ten times as fast. */
const fast: Clock = { ...systemClock, monotonic: () => 10 * systemClock.monotonic(), setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs / 10) }

describe('origin: a Hub that fails', function () {
  this.timeout(30_000)
  let hub: Hub
  let cluster: Cluster
  const servers: HfServer[] = []
  const logged: string[] = []
  const logger: Logger = {
    debug: (details, message) => { logged.push(`${message} ${JSON.stringify(details)}`) },
    info: (details, message) => { logged.push(`${message} ${JSON.stringify(details)}`) },
    warn: (details, message) => { logged.push(`${message} ${JSON.stringify(details)}`) },
    error: (details, message) => { logged.push(`${message} ${JSON.stringify(details)}`) },
    child: () => logger
  }

  const start = async (init: NodeInit = {}): Promise<{ node: ShoalNode, get: (path: string, init?: RequestInit) => Promise<Response> }> => {
    const [node] = await cluster.spawn(1, () => ({ logger, ...init })) as [ShoalNode]
    const server = createHfServer({ node, host: '127.0.0.1', port: 0, logger })
    await server.start()
    servers.push(server)
    // Files are given before the model they belong to is published: what comes next is about that.
    const get = async (path: string, request?: RequestInit): Promise<Response> => {
      const { status, headers, ...answer } = await fetch(`${server.url}${path}`, request).then(async answer => ({ status: answer.status, headers: answer.headers, body: await answer.arrayBuffer() }))
      await until('nothing is fetched any more', () => node.origin?.status().fetches.length === 0)
      return new Response(answer.body, { status, headers })
    }
    return { node, get }
  }
  const bytes = async (answer: Response): Promise<Buffer> => Buffer.from(await answer.arrayBuffer())

  beforeEach(async () => {
    hub = await Hub.start()
    cluster = hubCluster(hub)
  })
  afterEach(async () => {
    await Promise.all(servers.splice(0).map(async server => { await server.stop() }))
    await cluster.teardown()
    await hub.stop()
    logged.length = 0
  })

  it('goes on where it was cut off', async () => {
    const { get } = await start({ clock: hasty })
    hub.push('a/b', FILES)
    hub.faults.cut = { after: MiB + 100_000, times: 2 }
    assert.ok((await bytes(await get('/a/b/resolve/main/model.safetensors'))).equals(FILES['model.safetensors']))
    assert.equal(hub.faults.cut.times, 0)
    // What was on its way when it was cut comes again, and no more.
    assert.ok(hub.fileBytes < TOTAL + 400_000, `${hub.fileBytes} of ${TOTAL}`)
  })

  it('does not wait for a file that stands still', async () => {
    const { get } = await start({ clock: hasty })
    hub.push('a/b', FILES)
    hub.faults.stall = { after: MiB, times: 1 }
    assert.ok((await bytes(await get('/a/b/resolve/main/model.safetensors'))).equals(FILES['model.safetensors']))
    assert.equal(hub.faults.stall.times, 0)
  })

  it('takes a Hub that knows no ranges', async () => {
    const { get } = await start({ clock: hasty })
    hub.push('a/b', FILES)
    Object.assign(hub.faults, { noRanges: true, cut: { after: MiB, times: 1 } })
    assert.ok((await bytes(await get('/a/b/resolve/main/model.safetensors'))).equals(FILES['model.safetensors']))
  })

  it('publishes nothing of wrong bytes, and says which file and both hashes', async () => {
    let now = 0
    const { get, node } = await start({ clock: { ...systemClock, monotonic: () => now + systemClock.monotonic() } })
    hub.push('a/b', FILES)
    hub.faults.wrong = 'model.safetensors'
    const config = get('/a/b/resolve/main/config.json')
    const answer = await get('/a/b/resolve/main/model.safetensors')
    assert.equal(answer.status, 502)
    // This one is what the Hub says, whatever the others are.
    assert.ok((await bytes(await config)).equals(FILES['config.json']))
    const right = createHash('sha256').update(FILES['model.safetensors']).digest('hex')
    const wrong = Buffer.from(FILES['model.safetensors'])
    wrong[wrong.length - 1] = (wrong[wrong.length - 1] ?? 0) ^ 1
    const { error } = await answer.json() as { error: string }
    for (const part of ['model.safetensors', right, createHash('sha256').update(wrong).digest('hex')]) assert.ok(error.includes(part), error)
    assert.deepEqual([node.models(), node.links()], [[], []])
    // For a while everybody is told so, and the Hub is not asked again.
    const before = hub.fileBytes
    assert.equal((await get('/a/b/resolve/main/model.safetensors')).status, 502)
    assert.equal(hub.fileBytes, before)
    delete hub.faults.wrong
    now += 60_000
    assert.ok((await bytes(await get('/a/b/resolve/main/model.safetensors'))).equals(FILES['model.safetensors']))
  })

  it('passes on that the Hub is busy, and waits when it has begun', async () => {
    const { get } = await start({ clock: hasty })
    hub.push('a/b', FILES)
    hub.faults.down = { status: 429, headers: { 'retry-after': '17' } }
    const busy = await get('/a/b/resolve/main/config.json')
    assert.deepEqual([busy.status, busy.headers.get('retry-after')], [429, '17'])
    delete hub.faults.down
    const info = await get('/api/models/a/b')
    assert.equal(info.status, 200)
    hub.faults.down = { status: 429, headers: { 'retry-after': '20' } }
    const answer = get('/a/b/resolve/main/config.json')
    await new Promise<void>(resolve => { const check = (): void => { if (logged.some(line => line.includes('is gone on with'))) resolve(); else setTimeout(check, 5) }; check() })
    delete hub.faults.down
    assert.ok((await bytes(await answer)).equals(FILES['config.json']))
  })

  it('says that the Hub is down, and serves what it has of it', async () => {
    const { get } = await start()
    hub.push('a/b', FILES)
    assert.equal((await get('/a/b/resolve/main/config.json')).status, 200)
    hub.faults.down = { status: 503 }
    assert.equal((await get('/a/b/resolve/main/w.bin')).status, 200)
    const other = await get('/c/d/resolve/main/config.json')
    assert.equal(other.status, 502)
    assert.match((await other.json() as { error: string }).error, /the upstream http:\/\/127\.0\.0\.1:\d+ answers 503/)
    await hub.stop()
    assert.match((await (await get('/c/d/resolve/main/config.json')).json() as { error: string }).error, /cannot be reached: ECONNREFUSED/)
  })

  it('waits once for a Hub that is silent, and then gives what it has at once, until that is back', async () => {
    const { get } = await start({ clock: fast })
    hub.push('a/b', FILES)
    assert.equal((await get('/a/b/resolve/main/config.json')).status, 200)
    let callers = 0
    /** How long it takes, by the node's clock, when the answer to nobody is known. */
    const head = async (): Promise<{ ms: number, commit: string | null }> => {
      const startedAt = fast.monotonic()
      const answer = await get('/a/b/resolve/main/config.json', { method: 'HEAD', headers: { authorization: `Bearer hf_${callers++}` } })
      assert.equal(answer.status, 200)
      return { ms: fast.monotonic() - startedAt, commit: answer.headers.get('x-repo-commit') }
    }
    hub.faults.late = { ms: 3_600_000 }
    const first = await head()
    assert.ok(first.ms >= 8_000 && first.ms < 10_000, `${first.ms} ms`)
    for (let i = 0; i < 5; i++) {
      const { ms } = await head()
      assert.ok(ms < 4_000, `${ms} ms`)
    }
    // Of what is not here nobody but the Hub can tell.
    assert.equal((await get('/c/d/resolve/main/config.json')).status, 504)
    delete hub.faults.late
    const second = hub.push('a/b', { ...FILES, 'config.json': Buffer.from('{"model_type":"qwen"}') })
    await until('it is seen that the Hub is back', async () => (await head()).commit === second)
  })

  it('tells a client in time when the Hub tells all of it late', async () => {
    const { get } = await start({ clock: fast })
    hub.push('a/gated', FILES, { gated: true, tokens: ['hf_one'] })
    for (const late of [{ ms: 600, headOnly: true }, { ms: 600 }]) {
      hub.faults.late = late
      const startedAt = fast.monotonic()
      assert.equal((await get('/a/gated/resolve/main/config.json', { method: 'HEAD', headers: { authorization: 'Bearer hf_one' } })).status, 504)
      const ms = fast.monotonic() - startedAt
      assert.ok(ms < 10_000, `${ms} ms`)
    }
  })

  it('says so when the Hub changes to another protocol, and asks again', async () => {
    const { get, node } = await start()
    hub.push('a/b', FILES)
    hub.faults.down = { status: 101, headers: { connection: 'upgrade', upgrade: 'h2c' } }
    const signal = AbortSignal.timeout(5_000)
    const answer = await get('/a/b/resolve/main/config.json', { signal })
    assert.equal(answer.status, 502)
    assert.match((await answer.json() as { error: string }).error, /the upstream http:\/\/127\.0\.0\.1:\d+ changes to another protocol/)
    delete hub.faults.down
    assert.equal((await get('/a/b/resolve/main/config.json', { signal })).status, 200)
    assert.equal(node.origin?.status().counters.requests.failed, 1)
  })

  it('fetches again what was removed everywhere', async () => {
    const { get, node } = await start({ settings: { transfer: { providerTimeoutMs: 500 } } })
    hub.push('a/b', FILES)
    assert.equal((await get('/a/b/resolve/main/config.json')).status, 200)
    for (const { cid } of node.models()) await node.remove(cid)
    assert.ok((await bytes(await get('/a/b/resolve/main/model.safetensors'))).equals(FILES['model.safetensors']))
    assert.equal(hub.fileBytes, 2 * TOTAL)
  })

  it('does not say to have what it had, so that nobody waits for that', async () => {
    const one = await start()
    const two = await start()
    await cluster.connect()
    hub.push('a/b', FILES)
    assert.equal((await one.get('/a/b/resolve/main/config.json')).status, 200)
    for (const { cid } of one.node.models()) await one.node.remove(cid)
    assert.ok((await bytes(await two.get('/a/b/resolve/main/model.safetensors'))).equals(FILES['model.safetensors']))
    assert.equal(hub.fileBytes, 2 * TOTAL)
    assert.ok(logged.every(line => !line.includes('is not waited for')))
  })

  it('says again to have what was lost and came back', async () => {
    let ahead = 0
    const one = await start({ clock: { ...systemClock, monotonic: () => ahead + systemClock.monotonic() }, settings: { transfer: { providerTimeoutMs: 300 } } })
    const two = await start()
    hub.push('a/b', FILES)
    for (const { get } of [one, two]) assert.equal((await get('/a/b/resolve/main/config.json')).status, 200)
    for (const { cid } of one.node.models()) await one.node.remove(cid)
    hub.faults.down = { status: 403 }
    assert.equal((await one.get('/a/b/resolve/main/config.json')).status, 403)
    delete hub.faults.down
    ahead += 30_000
    await cluster.connect()
    for (const [path, content] of Object.entries(FILES)) assert.ok((await bytes(await one.get(`/a/b/resolve/main/${path}`))).equals(content))
    assert.ok(one.node.models()[0]?.complete)
    await cluster.kill(two.node)
    const three = await start()
    await cluster.connect()
    assert.equal((await three.get('/a/b/resolve/main/config.json')).status, 200)
    assert.equal(hub.fileBytes, 2 * TOTAL)
  })

  it('sees that a branch has moved on, and keeps what it stood for', async () => {
    let now = 0
    const { get, node } = await start({ clock: { ...systemClock, monotonic: () => now + systemClock.monotonic() } })
    const first = hub.push('a/b', FILES)
    assert.equal((await get('/a/b/resolve/main/config.json')).headers.get('x-repo-commit'), first)
    const before = hub.fileBytes
    const second = hub.push('a/b', { ...FILES, 'config.json': Buffer.from('{"model_type":"qwen"}') })
    now += 60_000
    const answer = await get('/a/b/resolve/main/config.json')
    assert.deepEqual([answer.headers.get('x-repo-commit'), (await answer.json() as { model_type: string }).model_type], [second, 'qwen'])
    // The other files are the same, and here.
    assert.equal(hub.fileBytes - before, '{"model_type":"qwen"}'.length)
    assert.equal((await (await get(`/a/b/resolve/${first}/config.json`)).json() as { model_type: string }).model_type, 'llama')
    assert.deepEqual(node.links('a/b').map(({ revision, origin }) => `${revision} ${origin?.commit}`).sort(), [`${first} ${first}`, `${second} ${second}`, `main ${second}`].sort())
  })

  it('gives the words of the Hub for what is not there', async () => {
    const { get } = await start()
    hub.push('a/b', FILES)
    for (const [path, status, code] of [['/x/y/resolve/main/f', 401, 'RepoNotFound'], ['/a/b/resolve/v9/f', 404, 'RevisionNotFound'], ['/a/b/resolve/main/f', 404, 'EntryNotFound'], ['/api/models/x/y', 401, 'RepoNotFound']] as const) {
      const answer = await get(path)
      assert.deepEqual([answer.status, answer.headers.get('x-error-code')], [status, code], path)
    }
    assert.equal(hub.fileBytes, 0)
  })

  it('asks the Hub for each caller whether a model is open still, by its commit, too', async () => {
    const { get, node } = await start()
    const commit = hub.push('a/b', FILES)
    const allowed = { headers: { authorization: 'Bearer hf_one' } }
    assert.equal((await get('/a/b/resolve/main/config.json', allowed)).status, 200)
    hub.gate('a/b', ['hf_one'])
    const refused = await get(`/a/b/resolve/${commit}/config.json`)
    assert.deepEqual([refused.status, refused.headers.get('x-error-code')], [401, 'GatedRepo'])
    assert.deepEqual(node.links('a/b').map(({ origin }) => origin?.restricted), [true, true])
    assert.equal((await get(`/a/b/resolve/${commit}/config.json`, allowed)).status, 200)
    assert.equal(hub.asked.filter(path => path.includes('/revision/')).length, 2)
  })

  it('lets a token that stops being good while it fetches fail nobody else', async () => {
    const { node } = await start({ clock: hasty })
    const signal = AbortSignal.timeout(20_000)
    const [one, two] = [{ token: 'hf_one' }, { token: 'hf_two' }]
    hub.push('a/gated', FILES, { gated: true, tokens: [one.token, two.token] })
    Object.assign(hub.faults, { bytesPerSecond: 4 * MiB, cut: { after: MiB, times: 1 } })
    const resolve = async (caller: Caller): Promise<OriginModel> => {
      const model = await node.origin?.resolve('a/gated', 'main', caller)
      assert.ok(model !== undefined)
      return model
    }
    const [first, second] = [await resolve(one), await resolve(two)]
    const [refused, fetched] = [assert.rejects(first.find(signal), { name: 'UpstreamRefusedError' }), second.find(signal)]
    await until('some of it came', () => hub.fileBytes >= MiB / 2)
    hub.gate('a/gated', [two.token])
    await refused
    await assert.rejects(resolve(one), { name: 'UpstreamRefusedError' })
    await fetched
    assert.deepEqual([hub.faults.cut?.times, node.models()[0]?.complete], [0, true])
  })

  it('repeats no token that the Hub repeats', async () => {
    const token = 'hf_TheSecretOfSomebody'
    hub.push('a/b', FILES)
    const counters = { requests: { ok: 0, refused: 0, busy: 0, failed: 0 }, bytes: 0, fetched: 0, failed: 0, shared: 0 }
    const upstream = new Upstream({ url: hub.url, userAgent: 'shoal', clock: systemClock, counters })
    const signal = AbortSignal.timeout(5_000)
    try {
      const model = await upstream.model('a/b', 'main', { token }, { signal })
      const [file] = model.files
      assert.ok(file !== undefined)
      const read = async (offset: number): Promise<unknown> => await upstream.read(model, file, { offset, end: file.size }, { token }, signal)
      const describeAgain = async (): Promise<unknown> => await upstream.model('a/b', 'main', { token }, { signal })
      for (const [down, ask, says] of [
        [{ status: 200, headers: { 'content-encoding': token } }, async () => await read(0), /encoded as "\.\.\."$/],
        [{ status: 206, headers: { 'content-range': token } }, async () => await read(1), /the range "\.\.\."$/],
        [{ status: 403, headers: { 'x-error-message': token } }, async () => await read(0), /: "\.\.\."$/],
        [{ status: 200, body: `${token.slice(0, 12)} and so on` }, describeAgain, /it is no JSON$/]
      ] as const) {
        hub.faults.down = down
        await assert.rejects(ask, (error: Error) => says.test(error.message) && !inspect(error).includes(token.slice(0, 12)))
      }
    } finally {
      upstream.stop()
    }
  })

  it('gives a gated model to whom the Hub lets in, and a token to nobody but the Hub', async () => {
    const one = await start()
    const two = await start()
    await cluster.connect()
    const token = 'hf_TheSecretOfSomebody'
    const commit = hub.push('a/gated', FILES, { gated: true, tokens: [token] })
    const allowed = { headers: { authorization: `Bearer ${token}` } }
    for (const { get } of [one, two]) {
      for (const path of ['/a/gated/resolve/main/config.json', `/a/gated/resolve/${commit}/model.safetensors`]) {
        const refused = await get(path)
        assert.deepEqual([refused.status, refused.headers.get('x-error-code')], [401, 'GatedRepo'])
        assert.equal((await get(path, { headers: { authorization: 'Bearer hf_other' } })).status, 403)
        assert.equal((await get(path, allowed)).status, 200)
        assert.equal((await get(path)).status, 401) // here now, and still not for everybody
      }
    }
    assert.equal(hub.fileBytes, TOTAL)
    assert.deepEqual(hub.leaked, [])
    // A Hub that is silent lets in whom it let in before.
    hub.faults.down = { status: 503 }
    assert.equal((await two.get('/a/gated/resolve/main/config.json', allowed)).status, 200)
    assert.equal((await two.get('/a/gated/resolve/main/config.json')).status, 502)
    for (const line of logged) assert.equal(line.includes(token), false, line)
    for (const { node } of [one, two]) {
      assert.equal(JSON.stringify(await node.status()).includes(token), false)
      for (const name of await readdir(cluster.directory(node), { recursive: true, withFileTypes: true })) {
        if (name.isFile()) assert.equal((await readFile(join(name.parentPath, name.name))).includes(token), false, name.name)
      }
    }
  })
})
